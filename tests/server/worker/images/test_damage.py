"""Damaged files that every viewer shows, and those that lost too much."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manyview_server.worker.images import decoder
from manyview_server.worker.images.damage import plain_png
from manyview_server.worker.images.decoder import DecodeError
from support.images.image_files import png_chunk

PHOTO = np.asarray(
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((256, 192))
)


def saved(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image or Image.fromarray(PHOTO)).save(buffer, kind, **options)
    return buffer.getvalue()


def cut(jpeg: bytes, fraction: float) -> bytes:
    """A JPEG without the last part of its first scan."""
    scan = jpeg.index(b"\xff\xda")
    return jpeg[: len(jpeg) - 2 - round(fraction * (len(jpeg) - scan))]


JPEG = saved("JPEG", quality=90)
WHOLE = decoder.decode(JPEG)
SCAN = JPEG.index(b"\xff\xda")

SHOWN_WHOLE = {
    "no end marker": JPEG[:-2],
    "zeros in place of the end": JPEG[:-2] + bytes(4096),
    "bytes before the end marker": JPEG[:-2] + b"\x12\x34" + JPEG[-2:],
    "bytes before a segment": JPEG[:20] + b"\x00\x34\xff\x00" + JPEG[20:],
    "bytes before the scan": JPEG[:SCAN] + b"\x12\x34\x56" + JPEG[SCAN:],
    "another file behind it": JPEG + JPEG[: len(JPEG) // 2],
}


@pytest.mark.parametrize("data", SHOWN_WHOLE.values(), ids=SHOWN_WHOLE)
def test_a_jpeg_with_odd_bytes_and_without_an_end_gives_all_its_pixels(data: bytes) -> None:
    assert np.abs(decoder.decode(data).astype(int) - WHOLE).max() <= 2


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("end", [b"", bytes(999), b"\xff\xd9"], ids=["cut", "zeros", "ended"])
def test_a_jpeg_may_lose_a_tenth_of_its_pixels_and_no_more(mode: str, end: bytes) -> None:
    data = saved("JPEG", Image.fromarray(PHOTO).convert(mode), quality=90)
    pixels = decoder.decode(cut(data, 0.05) + end)
    whole = decoder.decode(data)
    assert np.abs(pixels[:160].astype(int) - whole[:160]).max() <= 2
    assert pixels[-1, -8:].std() == 0
    for fraction in (0.2, 0.9):
        with pytest.raises(DecodeError, match=r"lost \d\d % of its pixels; at most 10 %") as caught:
            decoder.decode(cut(data, fraction) + end)
        assert caught.value.reason == "DECODE_FAILED"


def test_a_progressive_jpeg_without_its_last_scans_is_only_less_sharp() -> None:
    data = saved("JPEG", progressive=True)
    found = decoder.decode(data[: len(data) // 2]).astype(int)
    assert np.abs(found - PHOTO).mean() < 20
    first_scan = cut(data[: data.index(b"\xff\xda", data.index(b"\xff\xda") + 2) + 2], 0.5)
    with pytest.raises(DecodeError, match="lost"):
        decoder.decode(first_scan)


def test_a_whole_jpeg_with_gray_at_its_end_is_not_taken_for_a_damaged_one() -> None:
    gray = PHOTO.copy()
    gray[60:] = 128
    assert decoder.decode(saved("JPEG", Image.fromarray(gray))).shape == gray.shape


PNG = saved("PNG")
TEXT = png_chunk(b"tEXt", b"Title\0words")
BROKEN_TEXT = TEXT[:-1] + bytes([TEXT[-1] ^ 1])

SHOWN_PNGS = {
    "a text before the pixels with a wrong checksum": PNG[:33] + BROKEN_TEXT + PNG[33:],
    "a text after the pixels with a wrong checksum": PNG[:-12] + BROKEN_TEXT + PNG[-12:],
    "an unknown chunk with a wrong checksum": PNG[:33] + BROKEN_TEXT.replace(b"tEXt", b"teSt") + PNG[33:],
    "a profile with a wrong checksum": PNG[:33] + BROKEN_TEXT.replace(b"tEXt", b"iCCP") + PNG[33:],
    "a compressed text that is none": PNG[:33] + png_chunk(b"zTXt", b"Title\0\0junk") + PNG[33:],
    "a text that grows without end": PNG[:33] + png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 27))) + PNG[33:],
    "no end": PNG[:-12],
    "half an end": PNG[:-7],
    "pixels with a wrong checksum": PNG[:-16] + bytes(4) + PNG[-12:],
}


@pytest.mark.parametrize("data", SHOWN_PNGS.values(), ids=SHOWN_PNGS)
def test_a_png_is_read_whatever_is_wrong_beside_its_pixels(data: bytes) -> None:
    assert np.array_equal(decoder.decode(data), PHOTO)


def test_a_png_keeps_its_colors_when_its_texts_are_left_out() -> None:
    palette = Image.fromarray(PHOTO).convert("P")
    data = saved("PNG", palette, transparency=bytes([0, 128] + [255] * 254))
    plain = plain_png(data[:33] + BROKEN_TEXT + data[33:])
    assert plain == data
    assert np.array_equal(decoder.decode(data[:33] + BROKEN_TEXT + data[33:]), decoder.decode(data))


def test_a_png_whose_palette_is_damaged_or_whose_pixels_are_cut_off_is_an_error() -> None:
    data = bytearray(saved("PNG", Image.fromarray(PHOTO).convert("P")))
    data[data.index(b"PLTE") + 5] ^= 1
    for damaged in (bytes(data), PNG[:-200]):
        with pytest.raises(DecodeError) as caught:
            decoder.decode(damaged)
        assert caught.value.reason == "DECODE_FAILED"
