"""Check the bytes of a request against the table of limits before they are parsed.

Parsing is fast, but a hostile request of 16 MiB can hold eight million empty items. The parser needs 0.6 s for them,
and the event loop can do nothing else in that time. So this module reads the wire format itself, tags and lengths
without contents, and stops at the first limit that is exceeded: the limits also bound what it reads. It pauses after a
few thousand records, so that the event loop can run other callbacks in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from manyview_server.configuration import configuration_size
from manyview_server.errors import InvalidArgument, Violation
from manyview_server.front.rpc.request_limits import FIELD_LIMITS, FieldLimit

RECORDS_AT_ONCE = 4_096
"""Records that are read between two pauses. They take about 2 ms."""
MAX_UNKNOWN = 100
"""The most records of unknown fields in one message. A newer client may send a few."""
MAX_VARINT_BYTES = 10
VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
FIXED_BYTES = {FIXED64: 8, FIXED32: 4}

TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)

VALUE, STRUCT, LIST = (f"google.protobuf.{name}" for name in ("Value", "Struct", "ListValue"))
ENTRY = f"{STRUCT}.FieldsEntry"


class NotOnTheWire(ValueError):
    """The bytes are not a protobuf message."""


@dataclass(slots=True)
class WireField:
    """A field of a message: how many items and bytes of it are allowed, and the type of its messages."""

    name: str
    max_items: int
    max_bytes: int | None
    repeated: bool
    packed: bool
    """True for a list of numbers, which may all come in one value."""
    message: WireMessage | None


@dataclass(slots=True)
class WireMessage:
    """A type of message, with its fields by number."""

    full_name: str
    fields: dict[int, WireField] = field(default_factory=dict)
    harmless_bytes: int = 0
    """A message of at most this many bytes cannot exceed a limit, so it is not read."""


@dataclass(slots=True)
class _Frame:
    """A message that is being read."""

    message: WireMessage
    end: int
    path: str
    depth: int
    """The number of lists and objects of a configuration around it."""
    counts: dict[int, int] = field(default_factory=dict)
    key: str = ""
    """The key, if this is an entry of a configuration's object."""


def wire_message(descriptor: Descriptor) -> WireMessage:
    """Return a type of request with the limits of all its fields. Raises KeyError for a field that the table of limits
    lacks."""
    return _message(descriptor, {})


def check(data: bytes, message: WireMessage) -> Iterator[None]:
    """Check the bytes of a request. Yields at each pause.

    Raises:
        InvalidArgument: FIELD_INVALID, for the first field that is over its limit.
        NotOnTheWire: the bytes end early, or are not a message.
    """
    try:
        yield from _read(data, message)
    except (IndexError, UnicodeDecodeError) as error:
        raise NotOnTheWire("the message ends early") from error


def _read(data: bytes, message: WireMessage) -> Iterator[None]:
    frames = [_Frame(message, len(data), "", 0)]
    position, num_records, num_values = 0, 0, 0
    while frames:
        frame = frames[-1]
        if position >= frame.end:
            if position > frame.end:
                raise NotOnTheWire("a value extends beyond its message")
            frames.pop()
            continue
        num_records += 1
        if num_records % RECORDS_AT_ONCE == 0:
            yield
        tag, position = _varint(data, position)
        known = _counted(frame, tag >> 3)
        if tag & 7 != DELIMITED:
            position = _behind_scalar(data, position, tag & 7)
            continue
        num_bytes, start = _varint(data, position)
        position = start + num_bytes
        if position > frame.end:
            raise NotOnTheWire("a value extends beyond its message")
        if known is None:
            continue
        if known.max_bytes is not None and num_bytes > known.max_bytes:
            _refuse(_path(frame, known, tag >> 3), f"has {num_bytes:,} bytes; at most {known.max_bytes:,} are allowed")
        if frame.message.full_name == ENTRY and known.name == "key":
            frame.key = data[start:position].decode()
        inner = known.message
        if inner is not None and num_bytes > inner.harmless_bytes:
            path, depth = _path(frame, known, tag >> 3), frame.depth + (inner.full_name in (STRUCT, LIST))
            num_values += inner.full_name == VALUE
            if num_values > configuration_size.MAX_VALUES or depth > configuration_size.MAX_DEPTH:
                _refuse_configuration(frames, depth)
            frames.append(_Frame(inner, position, path, depth))
            position = start


def _counted(frame: _Frame, number: int) -> WireField | None:
    """Count one more record of a field, and return the field; None if this release does not know it."""
    known = frame.message.fields.get(number)
    key, most = (number, known.max_items) if known else (0, MAX_UNKNOWN)
    count = frame.counts[key] = frame.counts.get(key, 0) + 1
    if count > most:
        if known is None:
            _refuse(frame.path, f"has more than {most} fields that this server does not know")
        elif not known.repeated:
            _refuse(_inside(frame, known), "is set more than once")
        else:
            what = "entries" if known.message is not None and known.message.full_name.endswith("Entry") else "items"
            _refuse(_inside(frame, known), f"has more than {most:,} {what}; at most {most:,} are allowed")
    return known


def _refuse_configuration(frames: list[_Frame], depth: int) -> None:
    whole = next(frame.path for frame in frames if frame.message.full_name == STRUCT)
    if depth > configuration_size.MAX_DEPTH:
        most, what = configuration_size.MAX_DEPTH, "levels of lists and objects"
    else:
        most, what = configuration_size.MAX_VALUES, "values"
    _refuse(whole, f"has more than {most:,} {what}; at most {most:,} are allowed")


def _inside(frame: _Frame, known: WireField) -> str:
    """The field's path, without an index. The parts of a configuration are named as its user wrote them."""
    kind = frame.message.full_name
    if kind == ENTRY:
        return frame.path if known.name == "key" else f"{frame.path}.{frame.key}"
    if kind in (VALUE, STRUCT, LIST):
        return frame.path
    return f"{frame.path}.{known.name}" if frame.path else known.name


def _path(frame: _Frame, known: WireField, number: int) -> str:
    index = known.repeated and not known.packed and frame.message.full_name != STRUCT
    return _inside(frame, known) + (f"[{frame.counts[number] - 1}]" if index else "")


def _refuse(path: str, description: str) -> None:
    raise InvalidArgument.of(Violation(field=path or "request", description=description))


def _behind_scalar(data: bytes, position: int, kind: int) -> int:
    if kind == VARINT:
        return _varint(data, position)[1]
    if kind not in FIXED_BYTES:
        raise NotOnTheWire(f"there is no wire type {kind} in this contract")
    return position + FIXED_BYTES[kind]


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Read a number; return it and the position behind it."""
    byte = data[position]
    if byte < 0x80:
        return byte, position + 1
    number, shift = byte & 0x7F, 7
    for at in range(position + 1, position + MAX_VARINT_BYTES):
        byte = data[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at + 1
        shift += 7
    raise NotOnTheWire("a number has too many bytes")


def _message(descriptor: Descriptor, known: dict[str, WireMessage]) -> WireMessage:
    if descriptor.full_name in known:
        return known[descriptor.full_name]
    message = known[descriptor.full_name] = WireMessage(descriptor.full_name)
    for one in descriptor.fields:
        message.fields[one.number] = _field(one, known)
    message.harmless_bytes = _harmless_bytes(message)
    return message


def _field(one: FieldDescriptor, known: dict[str, WireMessage]) -> WireField:
    limit = FIELD_LIMITS[one.full_name] if needs_limit(one) else FieldLimit()
    inner: Any = one.message_type
    max_items = 1 if limit.items is None else limit.items
    packed = one.is_repeated and inner is None and one.type not in TEXTS
    return WireField(
        name=one.name,
        max_items=max_items,
        max_bytes=MAX_VARINT_BYTES * max_items if packed else limit.bytes,
        repeated=one.is_repeated,
        packed=packed,
        message=_message(inner, known) if inner is not None else None,
    )


def needs_limit(one: FieldDescriptor) -> bool:
    """Can this field of a request be large? A list, a map, a text, bytes and a whole configuration can."""
    is_configuration = one.message_type is not None and one.message_type.full_name == STRUCT
    is_part = one.containing_type is not None and one.containing_type.full_name == VALUE
    return bool(one.is_repeated or one.type in TEXTS or (is_configuration and not is_part))


def _harmless_bytes(message: WireMessage) -> int:
    """Return `WireMessage.harmless_bytes`. No part of a configuration is skipped: all of its values are counted."""
    if message.full_name.startswith("google.protobuf."):
        return -1
    sizes = [1 << 20]
    for one in message.fields.values():
        sizes += [one.max_bytes] if one.max_bytes is not None else []
        # Each item has at least a tag and a length.
        sizes += [2 * one.max_items] if one.repeated else []
        sizes += [one.message.harmless_bytes] if one.message is not None else []
    return min(sizes)
