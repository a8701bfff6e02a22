"""AVIF files made of boxes, without pixels that a decoder could read."""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Item:
    """An image in an AVIF, and what its bitstream says."""

    width: int
    height: int
    kind: bytes = b"av01"
    stream: bytes | None = None
    properties: tuple[bytes, ...] = ()


def box(name: bytes, *parts: bytes) -> bytes:
    payload = b"".join(parts)
    return struct.pack(">I", 8 + len(payload)) + name + payload


def full_box(name: bytes, version: int, *parts: bytes) -> bytes:
    return box(name, bytes([version, 0, 0, 0]), *parts)


def turned(quarters: int) -> bytes:
    return box(b"irot", bytes([quarters]))


def mirrored(axis: int) -> bytes:
    return box(b"imir", bytes([axis]))


def sequence_header(width: int, height: int) -> bytes:
    """A unit with a reduced sequence header: 5 bits of zeros, then sizes of 16 bits each."""
    bits = f"{0:03b}11{0:05b}{15:04b}{15:04b}{width - 1:016b}{height - 1:016b}"
    bits += "0" * (-len(bits) % 8)
    payload = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return bytes([1 << 3 | 2, len(payload)]) + payload


def avif(*items: Item, brand: bytes = b"avif", primary: int = 1, method: int = 0) -> bytes:
    """Build an AVIF. Its items are numbered from 1, and lie in `mdat`, or in `idat` with method 1."""
    streams = [sequence_header(i.width, i.height) if i.stream is None else i.stream for i in items]
    head = box(b"ftyp", brand, bytes(4), b"avifmif1")
    start = 0 if method else len(head) + len(_meta(items, streams, primary, 0, method)) + 8
    body = _meta(items, streams, primary, start, method)
    return head + body + box(b"mdat", *([] if method else streams))


def _meta(items: tuple[Item, ...], streams: list[bytes], primary: int, start: int, method: int) -> bytes:
    properties: list[bytes] = []
    associations, entries, places = b"", b"", b""
    for number, (item, stream) in enumerate(zip(items, streams, strict=True), 1):
        size = full_box(b"ispe", 0, struct.pack(">II", item.width, item.height))
        own = (size, *item.properties)
        associations += struct.pack(">HB", number, len(own))
        associations += bytes(len(properties) + index for index in range(1, len(own) + 1))
        properties.extend(own)
        entries += full_box(b"infe", 2, struct.pack(">HH", number, 0), item.kind, b"\0")
        places += struct.pack(">HHHHII", number, method, 0, 1, start, len(stream))
        start += len(stream)
    count = struct.pack(">H", len(items))
    return full_box(
        b"meta",
        0,
        full_box(b"pitm", 0, struct.pack(">H", primary)),
        full_box(b"iloc", 1, b"\x44\x00", count, places),
        full_box(b"iinf", 0, count, entries),
        box(b"iprp", box(b"ipco", *properties), full_box(b"ipma", 0, struct.pack(">I", len(items)), associations)),
        box(b"idat", *(streams if method else [])),
    )
