from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from manyview_server.worker import decoder
from manyview_server.worker.decoder import DecodeError

SMOOTH = np.stack(np.meshgrid(np.arange(40) * 5, np.arange(24) * 9, [90]), axis=-1)[:, :, 0].astype(
    np.uint8
)  # (24, 40, 3)
ORIENTED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def ppm(pixels: np.ndarray) -> bytes:
    height, width, _ = pixels.shape
    return b"P6 # a comment\n%d %d\n255\n" % (width, height) + pixels.tobytes()


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_give_their_pixels(kind: str, options: dict) -> None:
    pixels = decoder.decode(saved(Image.fromarray(SMOOTH), kind, **options))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, SMOOTH)


def test_a_ppm_gives_its_pixels() -> None:
    assert np.array_equal(decoder.decode(ppm(SMOOTH)), SMOOTH)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_jpeg_is_what_pillow_makes_of_it(options: dict) -> None:
    data = saved(Image.fromarray(SMOOTH), "JPEG", quality=95, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decoder.decode(data) - expected).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright_as_exif_says(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[decoder.ORIENTATION_TAG] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    pixels = decoder.decode(saved(Image.fromarray(SMOOTH), kind, exif=exif, **options))
    expected = ORIENTED[orientation](SMOOTH)
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= 3
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_other_color_modes_become_rgb(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    image = Image.fromarray(SMOOTH).convert(mode)
    pixels = decoder.decode(saved(image, kind))
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(pixels - expected).max() <= (12 if mode == "CMYK" else 0)


def test_sixteen_bits_keep_their_eight_highest() -> None:
    gray = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    pixels = decoder.decode(saved(Image.fromarray(gray), "PNG"))
    assert np.array_equal(pixels[..., 0].ravel(), np.arange(256))


def test_a_palette_with_transparency_gives_its_colors() -> None:
    image = Image.fromarray(SMOOTH).convert("P")
    pixels = decoder.decode(saved(image, "PNG", transparency=bytes([0, 128] + [255] * 254)))
    assert np.array_equal(pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "IMAGE_EMPTY"),
        (b"no image at all", "FORMAT_NOT_ALLOWED"),
        (saved(Image.fromarray(SMOOTH), "GIF"), "FORMAT_NOT_ALLOWED"),
        (saved(Image.fromarray(SMOOTH), "BMP"), "FORMAT_NOT_ALLOWED"),
        (saved(Image.fromarray(SMOOTH), "JPEG")[:-200], "DECODE_FAILED"),
        (saved(Image.fromarray(SMOOTH), "PNG")[:-30], "DECODE_FAILED"),
        (saved(Image.fromarray(SMOOTH), "WEBP")[:-30], "DECODE_FAILED"),
        (b"\xff\xd8\xff\xe0 and then nothing", "DECODE_FAILED"),
        (ppm(SMOOTH)[:-1], "DECODE_FAILED"),
        (b"P6 4 4 65535\n" + bytes(96), "HEADER_CORRUPT"),
        (b"P6 0 4 255\n", "HEADER_CORRUPT"),
        (b"P6 16385 1 255\n", "SIDE_TOO_LONG"),
        (b"P6 10000 10000 255\n", "TOO_MANY_PIXELS"),
        (saved(Image.new("1", (10_000, 9_000)), "PNG"), "TOO_MANY_PIXELS"),
        (saved(Image.new("L", (10_000, 6_000)), "JPEG"), "TOO_MANY_PIXELS"),
    ],
)
def test_what_cannot_be_read_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decoder.decode(data)
    assert caught.value.reason == reason
    assert str(caught.value)


def test_resizing_is_pillows_antialiased_bilinear_within_one() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(noise).resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    resized = decoder.resize(noise, 32)
    assert resized.dtype == torch.uint8
    assert np.abs(resized.permute(1, 2, 0).numpy() - expected).max() <= 1


def test_an_image_of_the_right_size_is_left_as_it_is() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(decoder.resize(noise, 32).permute(1, 2, 0).numpy(), noise)
