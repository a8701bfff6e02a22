"""Transparency, many bits and floats as 8-bit RGB."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manyview_server.worker.images import decoder, rgb
from manyview_server.worker.images.decoder import DecodeError
from manyview_server.worker.images.rgb import PixelRule
from support.images.image_files import png_chunk

RED = (200, 30, 30)
SHAPE = np.zeros((8, 8), bool)
SHAPE[2:6, 2:6] = True
BACKGROUNDS = {"white": 255, "black": 0}


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(data: bytes, transparency: str = "white") -> np.ndarray:
    return decoder.read_picture(data, rule=PixelRule(transparency=transparency)).pixels


def hidden(color: Any) -> Image.Image:
    """A red square; the given colors are hidden beside it."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :, :3] = color
    pixels[SHAPE] = (*RED, 255)
    return Image.fromarray(pixels)


def raw_png(depth: int, color_type: int, rows: list[bytes], key: bytes, width: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, len(rows), depth, color_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = {b"IHDR": head, b"tRNS": key, b"IDAT": body, b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, data) for name, data in parts.items())


def palette() -> Image.Image:
    image = Image.fromarray(SHAPE.astype(np.uint8), "P")
    image.putpalette([1, 2, 3, *RED])
    return image


def on_black() -> Image.Image:
    return Image.fromarray((SHAPE[:, :, None] * np.array(RED)).astype(np.uint8))


TRANSPARENT = {
    "RGBA": saved(hidden((7, 8, 9))),
    "noise": saved(hidden(np.random.default_rng(0).integers(0, 256, (8, 8, 3)))),
    "WebP": saved(hidden((7, 8, 9)), "WEBP", lossless=True, exact=True),
    "palette": saved(palette(), transparency=b"\x00\xff"),
    "palette with a key": saved(palette(), transparency=0),
    "palette of two bits": saved(palette(), transparency=b"\x00\xff", bits=2),
    "RGB with a key": saved(on_black(), transparency=(0, 0, 0)),
}


@pytest.mark.parametrize("data", TRANSPARENT.values(), ids=TRANSPARENT)
@pytest.mark.parametrize("transparency", BACKGROUNDS)
def test_images_that_look_alike_are_alike(data: bytes, transparency: str) -> None:
    expected = np.full((8, 8, 3), BACKGROUNDS[transparency], np.uint8)
    expected[SHAPE] = RED
    assert np.array_equal(read(data, transparency), expected)


def test_dropped_transparency_shows_the_hidden_colors() -> None:
    assert read(TRANSPARENT["RGBA"], "drop")[0, 0].tolist() == [7, 8, 9]
    assert read(TRANSPARENT["palette"], "drop")[0, 0].tolist() == [1, 2, 3]
    assert read(TRANSPARENT["RGB with a key"], "drop")[0, 0].tolist() == [0, 0, 0]


def test_half_transparent_pixels_are_mixed_with_the_background() -> None:
    data = saved(Image.fromarray(np.array([[[100, 50, 0, 102]]], np.uint8)))
    assert read(data)[0, 0].tolist() == [193, 173, 153]
    assert read(data, "black")[0, 0].tolist() == [40, 20, 0]


GREY_KEYS = {
    1: (b"\x40", b"\0\1", [0, 255]),
    2: (b"\x60", b"\0\2", [85, 170]),
    4: (b"\x12", b"\0\2", [17, 34]),
    8: (b"\x07\x09", b"\0\x09", [7, 9]),
    16: (b"\x01\x02\x01\x03", b"\1\3", [1, 1]),
}


@pytest.mark.parametrize("depth", GREY_KEYS)
def test_a_transparent_grey_is_found_at_every_depth(depth: int) -> None:
    row, key, levels = GREY_KEYS[depth]
    data = raw_png(depth, 0, [row], key, width=2)
    assert read(data)[0, :, 0].tolist() == [levels[0], 255]
    assert read(data, "drop")[0, :, 0].tolist() == levels


def test_a_transparent_color_of_sixteen_bits_is_found() -> None:
    row, key = struct.pack(">6H", 256, 512, 768, 1024, 1280, 1536), struct.pack(">3H", 1024, 1280, 1536)
    assert read(raw_png(16, 2, [row], key, width=2)).tolist() == [[[1, 2, 3], [255, 255, 255]]]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_opaque_images_with_an_alpha_channel_keep_their_pixels(mode: str) -> None:
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).convert(mode)
    assert np.array_equal(read(saved(image)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(("largest", "bits"), [(65_535, 16), (4_095, 12), (0, 0)])
def test_the_bits_that_sixteen_bits_of_grey_use_are_counted(largest: int, bits: int) -> None:
    data = saved(Image.fromarray(np.array([[0, largest]], np.uint16)))
    assert decoder.read_picture(data).used_bits == bits


def test_the_bits_that_sixteen_bits_of_color_use_are_counted() -> None:
    row = struct.pack(">3H", 4095, 17, 0)
    head = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    parts = {b"IHDR": head, b"IDAT": zlib.compress(b"\0" + row), b"IEND": b""}
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, part) for name, part in parts.items())
    assert decoder.read_picture(data).used_bits == 12
    assert decoder.read_picture(saved(Image.new("RGB", (1, 1)))).used_bits is None


def test_floats_become_the_nearest_level() -> None:
    floats = np.array([[0, 0.5, 1, 1.0001]], np.float32)
    found = rgb.to_rgb(Image.fromarray(floats), PixelRule())
    assert np.asarray(found.image)[0, :, 0].tolist() == [0, 128, 255, 255]


def test_wide_integers_are_read_as_sixteen_bits() -> None:
    found = rgb.to_rgb(Image.fromarray(np.array([[0, 256, 65_535]], np.int32)), PixelRule())
    assert np.asarray(found.image)[0, :, 0].tolist() == [0, 1, 255]
    assert found.used_bits == 16


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        (np.array([[0, 255]], np.float32), r"floats from 0 to 255; an image of floats must lie in \[0, 1\]"),
        (np.array([[0, np.nan]], np.float32), "floats from nan to nan"),
        (np.array([[-1, 70_000]], np.int32), r"whole numbers from -1 to 70,000; an image must lie in \[0, 65535\]"),
    ],
)
def test_numbers_without_a_meaning_are_refused(numbers: np.ndarray, says: str) -> None:
    with pytest.raises(rgb.PixelsOutOfRange, match=says):
        rgb.to_rgb(Image.fromarray(numbers), PixelRule())


def test_the_refusal_of_numbers_names_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(image: Image.Image, rule: PixelRule, stored_mode: str) -> None:
        raise rgb.PixelsOutOfRange("floats from 0 to 255")

    monkeypatch.setattr(decoder, "to_rgb", refuse)
    with pytest.raises(DecodeError, match="floats from 0 to 255") as caught:
        decoder.decode(TRANSPARENT["RGBA"])
    assert caught.value.reason == "PIXELS_OUT_OF_RANGE"
