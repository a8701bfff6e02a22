"""The file that an array or a PIL image travels as."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
from PIL import Image

from manyview._uploads.pixels import encoding

NOISE = np.random.default_rng(0).integers(0, 256, (90, 100, 4), dtype=np.uint8)
MANY = 10**7


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_an_untouched_image_travels_as_its_file() -> None:
    file = io.BytesIO()
    Image.fromarray(NOISE[:, :, :3]).save(file, "JPEG")
    assert encoding.encode(opened(file.getvalue()), MANY).data == file.getvalue()


def test_small_plain_images_are_ppm_and_others_png() -> None:
    assert encoding.encode(NOISE[:, :, :3], MANY).data[:2] == b"P6"
    assert encoding.encode(NOISE[:, :, 0], MANY).data[:2] == b"P6"
    assert encoding.encode(NOISE, MANY).data[1:4] == b"PNG"
    assert encoding.encode(NOISE[:, :, 0].astype(np.uint16), MANY).data[1:4] == b"PNG"
    assert encoding.encode(np.zeros((1200, 1300, 3), np.uint8), MANY).data[1:4] == b"PNG"


def test_pixels_beyond_the_limit_become_a_jpeg_of_the_best_quality_that_fits() -> None:
    smooth = np.asarray(Image.fromarray(NOISE[:9, :9, :3]).resize((400, 300)))
    without_loss = encoding.encode(smooth, MANY)
    best = encoding.encode(smooth, 100_000)
    smaller = encoding.encode(smooth, len(best.data) - 1)
    assert [file.is_recompressed for file in (without_loss, best, smaller)] == [False, True, True]
    assert len(smaller.data) < len(best.data) <= 100_000
    assert opened(best.data).format == "JPEG"
    assert np.abs(np.asarray(opened(best.data)).astype(int) - smooth).max() <= 12


def test_pixels_with_alpha_become_a_webp_that_has_it_too() -> None:
    image = NOISE.copy()
    image[:, :, 3] = 255 * (np.arange(100) > 50)
    file = encoding.encode(image, 20_000)
    assert file.is_recompressed
    assert opened(file.data).format == "WEBP"
    assert np.array_equal(np.asarray(opened(file.data))[:, :, 3], image[:, :, 3])


def test_sixteen_bits_beyond_the_limit_lose_the_lower_eight() -> None:
    smooth: Any = np.asarray(Image.fromarray(NOISE[:9, :9, 0]).resize((400, 300))).astype(np.uint16) << 8
    file = encoding.encode(smooth, 40_000)
    assert file.is_recompressed
    assert np.abs(np.asarray(opened(file.data)).astype(int) - (smooth >> 8)).max() <= 12


def test_without_pil_nothing_is_compressed_with_loss() -> None:
    code = (
        "import sys, numpy as np; from manyview._uploads.pixels import encoding;"
        "file = encoding.encode(np.zeros((9, 9, 4), np.uint8), 10);"
        "print(file.is_recompressed, file.data[1:4], 'PIL' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "b'PNG'", "False"]
