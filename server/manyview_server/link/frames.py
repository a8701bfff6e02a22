"""Messages as frames, which a front and a worker exchange over an inherited socket pair.

A frame is a u32 with the length of the header, a u64 with the length of all blobs, the header as UTF-8 JSON {"type",
"fields", "packed": [names], "blobs": [lengths]}, and the blobs. Fields that are long lists of integers are packed: they
are no part of "fields", and the last blobs hold them, 8 bytes for each integer. Numbers are little-endian. The worker's
end is `blocking.Link`, and the front's end is `streams.AsyncLink`.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import types
import typing
from typing import Any

from manyview_server.errors import ResourceExhausted
from manyview_server.messages import embedding, preview, selection, timing, training
from manyview_server.messages.message import Hello, Message

PREFIX = struct.Struct("<IQ")
# The front's loop reads a header in one turn. This allows a large configuration, and no more.
MAX_HEADER_BYTES = 1 << 20
# This allows the classes and queries of a large selection.
MAX_BLOB_BYTES = 1 << 30
# The front sends and reads frames in parts of this size, so that the loop can run other callbacks in between.
PART_BYTES = 1 << 20
# A message that is longer than this is decoded off the front's loop, and so is one encoded with a list of more items.
LONG_BYTES = 64 << 10
LONG_ITEMS = 1_000
# The limit of a worker's messages, of which embeddings are the largest. A faulty worker must not fill the front's
# memory.
MAX_ANSWER_BYTES = 64 << 20


class LinkClosed(Exception):
    """The other end closed the socket or died."""


class LinkCorrupt(Exception):
    """The other end sent bytes that are not a frame."""


class MessageTooLarge(ResourceExhausted):
    """A message is over the link's limits. The sender refuses it, and no byte of it is sent."""

    def __init__(self, text: str) -> None:
        super().__init__("MESSAGE_TOO_LARGE", text)


def _message_types() -> dict[str, type[Message]]:
    found: dict[str, type[Message]] = {Hello.__name__: Hello}
    for module in (training, embedding, selection, preview, timing):
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, Message) and value is not Message:
                found[name] = value
    return found


MESSAGE_TYPES = _message_types()
_HINTS: dict[Any, dict[str, Any]] = {}


def encode(message: Message) -> list[bytes]:
    """Return the pieces of a frame. Blobs are not copied."""
    fields = {f.name: getattr(message, f.name) for f in dataclasses.fields(message) if f.name != "blobs"}
    hints = _hints(type(message))
    packed = {name: _packed(value) for name, value in fields.items() if _is_packed(hints[name], value)}
    blobs = [*message.blobs, *packed.values()]
    header = {
        "type": type(message).__name__,
        "fields": {name: _plain(value) for name, value in fields.items() if name not in packed},
        "packed": list(packed),
        "blobs": [len(blob) for blob in blobs],
    }
    text = _text(header)
    return [PREFIX.pack(len(text), sum(header["blobs"])) + text, *blobs]


def frame(message: Message, max_blob_bytes: int) -> list[bytes]:
    """Return the pieces of a frame that the other end accepts. Raises MessageTooLarge, which names the largest
    field."""
    pieces = encode(message)
    header_bytes, blob_bytes = len(pieces[0]) - PREFIX.size, sum(map(len, pieces[1:]))
    if header_bytes > MAX_HEADER_BYTES:
        fields = {f.name: _plain(getattr(message, f.name)) for f in dataclasses.fields(message) if f.name != "blobs"}
        raise MessageTooLarge(
            f"{_largest(fields)}; together, the fields of a {type(message).__name__} take {header_bytes:,} bytes, and "
            f"at most {MAX_HEADER_BYTES:,} are allowed"
        )
    if blob_bytes > max_blob_bytes:
        name = type(message).__name__
        raise MessageTooLarge(f"a {name} may carry at most {max_blob_bytes:,} bytes of data (got {blob_bytes:,})")
    return pieces


def _largest(fields: dict[str, Any]) -> str:
    """Describe the field that takes the most room: its dotted path, and how much it holds."""
    path, value = "", fields
    while isinstance(value, dict) and value:
        name = max(value, key=lambda key: len(_text(value[key])))
        # Users know the settings of a job by their own names.
        path, value = ("" if not path and name == "settings" else f"{path}.{name}".lstrip(".")), value[name]
    holds = f"{len(value):,} entries" if isinstance(value, list) else "one value"
    return f"{path} has {holds} of {len(_text(value)):,} bytes"


def decode(header: bytes, body: bytes | bytearray) -> Message:
    """Return the message in the header and the blobs of a frame. Raises LinkCorrupt."""
    try:
        parsed = json.loads(header)
        kind = MESSAGE_TYPES[parsed["type"]]
        hints = _hints(kind)
        fields = {name: _typed(hints[name], value) for name, value in parsed["fields"].items()}
        view, blobs, offset = memoryview(body), [], 0
        for length in parsed["blobs"]:
            blobs.append(bytes(view[offset : offset + length]))
            offset += length
        for name in reversed(parsed["packed"]):
            fields[name] = _unpacked(blobs.pop())
        return kind(blobs=tuple(blobs), **fields)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, OverflowError, struct.error) as error:
        raise LinkCorrupt(f"frame of {len(header)} bytes: {error}") from error


def _is_packed(hint: Any, value: Any) -> bool:
    return hint == tuple[int, ...] and len(value) > LONG_ITEMS


def _packed(value: tuple[int, ...]) -> bytes:
    return struct.pack(f"<{len(value)}q", *value)


def _unpacked(blob: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(blob) // 8}q", blob)


def _text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of a class's fields. They are cached because Python computes them at each call."""
    if kind not in _HINTS:
        _HINTS[kind] = typing.get_type_hints(kind)
    return _HINTS[kind]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _typed(hint: Any, value: Any) -> Any:
    """Convert a JSON value to the type of a field, because JSON has no tuples and no dataclasses. Raises TypeError."""
    if isinstance(hint, types.GenericAlias):
        item = hint.__args__[-1] if hint.__origin__ is dict else hint.__args__[0]
        if hint.__origin__ is dict:
            return {name: _typed(item, v) for name, v in _of_type(dict, value).items()}
        return tuple(_typed(item, v) for v in _of_type(list, value))
    if dataclasses.is_dataclass(hint):
        hints = _hints(hint)
        return hint(**{name: _typed(hints[name], v) for name, v in _of_type(dict, value).items()})  # type: ignore[operator]
    if typing.get_origin(hint) is typing.Literal:
        if value not in typing.get_args(hint):
            raise TypeError(f"{value!r} instead of one of {', '.join(typing.get_args(hint))}")
        return value
    if hint is float and type(value) is int:
        return float(value)
    return value if hint is Any else _of_type(hint, value)


def _of_type(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{type(value).__name__} instead of {kind.__name__}")
    return value


def check_lengths(header_bytes: int, blob_bytes: int, max_blob_bytes: int = MAX_BLOB_BYTES) -> None:
    """Raise LinkCorrupt if a frame with these lengths is over the limits."""
    if header_bytes > MAX_HEADER_BYTES or blob_bytes > max_blob_bytes:
        raise LinkCorrupt(f"frame of {header_bytes} + {blob_bytes} bytes is over the limit")


def is_long(message: Message) -> bool:
    """Can it take long to encode the message, because it has a configuration or a long list?"""
    fields = (getattr(message, f.name) for f in dataclasses.fields(message) if f.name != "blobs")
    return any(isinstance(v, dict) or (isinstance(v, tuple) and len(v) > LONG_ITEMS) for v in fields)
