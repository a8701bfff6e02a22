"""PNG as the client writes it, which Pillow reads, and as the server writes it, which the client reads."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manyview._uploads.pixels import png


def noise(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_pillow_reads_the_samples_of_eight_bits(channels: int, mode: str) -> None:
    samples = noise(5, 7, channels)
    with Image.open(io.BytesIO(png.encode(samples[:, ::-1]))) as image:
        assert image.mode == mode
        assert np.array_equal(np.asarray(image).reshape(samples.shape), samples[:, ::-1])


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_pillow_reads_grey_of_sixteen_bits(order: str) -> None:
    samples = (noise(5, 7, 1).astype(np.uint16) * 257).astype(order)
    with Image.open(io.BytesIO(png.encode(samples))) as image:
        assert image.mode == "I;16"
        assert np.array_equal(np.asarray(image), samples[:, :, 0])


def test_a_color_profile_travels_along() -> None:
    with Image.open(io.BytesIO(png.encode(noise(5, 7, 3), b"a profile"))) as image:
        assert image.info["icc_profile"] == b"a profile"


@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (64, 48)])
@pytest.mark.parametrize("filter_type", [0, 1, 2])
def test_a_png_is_read_as_pillow_reads_it(shape: tuple[int, int], filter_type: int) -> None:
    pixels = noise(*shape, 3)
    data = filtered(pixels, filter_type)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(np.asarray(image), pixels)
    assert np.array_equal(png.decode(data), pixels)
    assert np.array_equal(png.decode(png.encode(pixels)), pixels)


def filtered(pixels: np.ndarray[Any, Any], filter_type: int) -> bytes:
    rows, before = pixels.astype(np.int16), np.zeros_like(pixels, dtype=np.int16)
    if filter_type == 1:
        before[:, 1:] = rows[:, :-1]
    if filter_type == 2:
        before[1:] = rows[:-1]
    lines = ((rows - before) % 256).astype(np.uint8).reshape(len(rows), -1)
    body = np.concatenate([np.full((len(rows), 1), filter_type, np.uint8), lines], axis=1)
    whole = png.encode(pixels)
    at = whole.index(b"IDAT") - 4
    return whole[:at] + png._chunk(b"IDAT", zlib.compress(body.tobytes())) + png._chunk(b"IEND", b"")


def test_a_png_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="open it with Pillow"):
        png.decode(png.encode(noise(4, 4, 1)))
