"""The largest frame that an AV1 bitstream may hold, from its sequence headers (AV1 specification 5.3 to 5.5).

A decoder allocates frames by the bitstream's own size, whatever the container states.
"""

from __future__ import annotations

from manyview_server.image_header.header import corrupt

SEQUENCE_HEADER = 1
MAX_SEQUENCE_HEADER_BYTES = 1_024
MAX_UNITS = 1_000


class Bits:
    """Reads unsigned integers of any number of bits."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def read(self, num_bits: int) -> int:
        """Return the next integer. Raises HeaderRefused at the end."""
        self._left -= num_bits
        if self._left < 0:
            raise corrupt("the AV1 sequence header is cut off")
        return self._value >> self._left & (1 << num_bits) - 1


def largest_frame(stream: bytes) -> tuple[int, int] | None:
    """Return the largest width and the largest height that a sequence header states, or None without a header.

    Raises HeaderRefused.
    """
    width, height = 0, 0
    at = 0
    for _ in range(MAX_UNITS):
        if at >= len(stream):
            return (width, height) if width else None
        head = stream[at]
        at += 2 if head & 4 else 1
        length, at = _length(stream, at) if head & 2 else (len(stream) - at, at)
        if at + length > len(stream):
            raise corrupt("the AV1 bitstream is cut off")
        if head >> 3 & 15 == SEQUENCE_HEADER:
            found = _frame_size(Bits(stream[at : at + min(length, MAX_SEQUENCE_HEADER_BYTES)]))
            width, height = max(width, found[0]), max(height, found[1])
        at += length
    raise corrupt(f"the AV1 bitstream has more than {MAX_UNITS:,} units")


def _length(stream: bytes, at: int) -> tuple[int, int]:
    """Return the length in leb128 at this position, and the position after it."""
    value = 0
    for index, byte in enumerate(stream[at : at + 8]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise corrupt("the AV1 bitstream is cut off")


def _frame_size(bits: Bits) -> tuple[int, int]:
    """Return the largest frame width and height of a sequence header."""
    bits.read(4)  # profile, still_picture
    if bits.read(1):  # reduced_still_picture_header
        bits.read(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = 1 + bits.read(4), 1 + bits.read(4)
    return 1 + bits.read(width_bits), 1 + bits.read(height_bits)


def _skip_operating_points(bits: Bits) -> None:
    has_decoder_model, delay_bits = False, 0
    if bits.read(1):  # timing_info
        bits.read(64)
        if bits.read(1):
            _skip_uvlc(bits)
        has_decoder_model = bool(bits.read(1))
        if has_decoder_model:
            delay_bits = 1 + bits.read(5)
            bits.read(32 + 10)
    has_display_delay = bits.read(1)
    for _ in range(1 + bits.read(5)):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if has_decoder_model and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if has_display_delay and bits.read(1):
            bits.read(4)


def _skip_uvlc(bits: Bits) -> None:
    num_zeros = 0
    while not bits.read(1):
        num_zeros += 1
    if num_zeros < 32:
        bits.read(num_zeros)
