"""The frame size in an AV1 bitstream."""

from __future__ import annotations

import io
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manyview_server.image_header import HeaderRefused
from manyview_server.image_header.av1 import Bits, largest_frame
from manyview_server.image_header.boxes import read_items
from support.images.avif_files import sequence_header

TEMPORAL_DELIMITER = b"\x12\x00"


def full_sequence_header(width: int, height: int) -> bytes:
    """A sequence header with timing, a decoder model and two operating points."""
    timing = "1" + f"{1:032b}{25:032b}" + "1" + "00101"  # the ticks of a picture are in exponential Golomb code
    model = "1" + f"{9:05b}{1:032b}{0:05b}{0:05b}"
    point = f"{0:012b}{9:05b}" + "1" + "1" + "0" * 21 + "1" + "0000"
    bits = f"{0:03b}00" + timing + model + "1" + f"{1:05b}" + point * 2
    bits += f"{15:04b}{15:04b}{width - 1:016b}{height - 1:016b}"
    bits += "0" * (-len(bits) % 8)
    payload = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return bytes([1 << 3 | 2, len(payload)]) + payload


@given(st.integers(1, 65_536), st.integers(1, 65_536))
def test_short_and_long_sequence_headers_give_their_size(width: int, height: int) -> None:
    assert largest_frame(TEMPORAL_DELIMITER + sequence_header(width, height)) == (width, height)
    assert largest_frame(full_sequence_header(width, height)) == (width, height)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70))
def test_the_size_of_a_real_bitstream_is_that_of_the_image(width: int, height: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "AVIF", speed=10)
    data = buffer.getvalue()
    (place,) = read_items(data).places[1]
    assert largest_frame(data[place.offset : place.offset + place.length]) == (width, height)


def test_the_largest_of_several_counts_and_none_is_none() -> None:
    assert largest_frame(sequence_header(9, 2) + sequence_header(3, 8)) == (9, 8)
    assert largest_frame(TEMPORAL_DELIMITER) is None
    assert largest_frame(b"") is None


@pytest.mark.parametrize(
    "stream", [sequence_header(9, 9)[:-1], b"\x0a\xff", b"\x0a\x02\x00\x00", TEMPORAL_DELIMITER * 1_001]
)
def test_a_stream_that_is_cut_off_or_endless_is_corrupt(stream: bytes) -> None:
    with pytest.raises(HeaderRefused):
        largest_frame(stream)


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_read_or_refused(stream: bytes) -> None:
    with suppress(HeaderRefused):
        size = largest_frame(stream)
        assert size is None or min(size) > 0


def test_bits_are_read_from_the_highest_on() -> None:
    bits = Bits(b"\xa5\x0f")
    assert [bits.read(1), bits.read(3), bits.read(12)] == [1, 0b010, 0b0101_0000_1111]
    with pytest.raises(HeaderRefused, match="cut off"):
        bits.read(1)
