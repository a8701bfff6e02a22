"""The header of a GIF (GIF87a and GIF89a), up to its first frame. Later frames are not looked at."""

from __future__ import annotations

import struct

from manyview_server.image_header.header import ImageHeader, corrupt, sized

GIF_SIGNATURES = (b"GIF87a", b"GIF89a")
EXTENSION, FRAME, END = 0x21, 0x2C, 0x3B
COMMENT, APPLICATION = 0xFE, 0xFF

MAX_GIF_PARTS = 20_000
"""The most blocks and stray bytes before the first frame. Pillow reads each in Python."""


def read_gif(data: bytes) -> ImageHeader:
    """Read the header of a GIF. Its size is that of the screen, or larger if the first frame reaches beyond the screen.

    Raises HeaderRefused.
    """
    if len(data) < 13:
        raise corrupt("GIF header is cut off")
    screen_width, screen_height, flags = struct.unpack_from("<HHB", data, 6)
    at = _Blocks(data, 13 + _palette_bytes(flags)).first_frame()
    if at + 9 > len(data):
        raise corrupt("GIF ends before its first frame")
    left, top, width, height = struct.unpack_from("<HHHH", data, at)
    if width < 1 or height < 1:
        raise corrupt(f"the first frame of the GIF has {width} x {height} pixels")
    return sized("gif", max(screen_width, left + width), max(screen_height, top + height))


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


class _Blocks:
    """Walks over what precedes the first frame, exactly as Pillow does, so that both find the same frame."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        self._num_parts = 0

    def first_frame(self) -> int:
        """Return the position after the separator of the first frame."""
        while True:
            kind = self._byte()
            if kind == FRAME:
                return self._at
            if kind == END:
                raise corrupt("GIF ends before its first frame")
            if kind == EXTENSION:
                self._skip_extension(self._byte())

    def _skip_extension(self, label: int) -> None:
        block = self._block()
        if label == COMMENT and not block:
            return
        if label == APPLICATION and block.startswith(b"NETSCAPE2.0"):
            self._block()
        while self._block():
            pass

    def _block(self) -> bytes:
        """Return the next block of an extension. The last one is empty."""
        length = self._byte()
        block = self._data[self._at : self._at + length]
        self._at += length
        return block

    def _byte(self) -> int:
        self._num_parts += 1
        if self._num_parts > MAX_GIF_PARTS:
            raise corrupt(f"GIF has more than {MAX_GIF_PARTS:,} blocks before its first frame")
        if self._at >= len(self._data):
            raise corrupt("GIF ends before its first frame")
        self._at += 1
        return self._data[self._at - 1]
