from __future__ import annotations

import dataclasses
import io
import struct
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torchvision import transforms

from manyview_server.configuration.networks.preprocessing import Preprocessing
from manyview_server.image_header import read_header
from manyview_server.worker.images import decoder
from manyview_server.worker.images.decoder import DecodeError
from support.images.image_files import frame, jpeg
from support.images.pictures import png

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


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def ppm(pixels: np.ndarray) -> bytes:
    height, width, _ = pixels.shape
    return b"P6 # a comment\n%d %d\n255\n" % (width, height) + pixels.tobytes()


LOSSLESS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("WEBP", {"lossless": True}),
    ("BMP", {}),
    *[("TIFF", {"compression": kind}) for kind in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd")],
]


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_lossless_formats_give_their_pixels(kind: str, options: dict[str, Any]) -> None:
    pixels = decoder.decode(saved(Image.fromarray(SMOOTH), kind, **options))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, SMOOTH)


def test_a_ppm_gives_its_pixels() -> None:
    assert np.array_equal(decoder.decode(ppm(SMOOTH)), SMOOTH)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_jpeg_is_what_pillow_makes_of_it(options: dict[str, Any]) -> None:
    data = saved(Image.fromarray(SMOOTH), "JPEG", quality=95, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decoder.decode(data) - expected).max() <= 2


def test_an_avif_a_gif_and_a_jpeg_in_a_tiff_give_nearly_their_pixels() -> None:
    near = {"AVIF": {"quality": 95, "subsampling": "4:4:4"}, "GIF": {}, "TIFF": {"compression": "jpeg", "quality": 95}}
    for kind, options in near.items():
        pixels = decoder.decode(saved(Image.fromarray(SMOOTH), kind, **options)).astype(int)
        assert np.abs(pixels - SMOOTH).mean() < (12 if kind == "GIF" else 3), kind


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright_as_exif_says(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    pixels = decoder.decode(saved(Image.fromarray(SMOOTH), kind, exif=exif, **options.get(kind, {})))
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
        (saved(Image.fromarray(SMOOTH), "ICO"), "FORMAT_NOT_ALLOWED"),
        (saved(Image.fromarray(SMOOTH), "JPEG")[:-60], "DECODE_FAILED"),
        (saved(Image.fromarray(SMOOTH), "PNG")[:-30], "DECODE_FAILED"),
        (saved(Image.fromarray(SMOOTH), "WEBP")[:-30], "DECODE_FAILED"),
        (saved(Image.fromarray(SMOOTH), "GIF")[:-60], "DECODE_FAILED"),
        (saved(Image.fromarray(SMOOTH), "BMP")[:-30], "HEADER_CORRUPT"),
        (saved(Image.fromarray(SMOOTH), "TIFF")[:500], "DECODE_FAILED"),
        (saved(Image.fromarray(SMOOTH), "AVIF")[:-30], "HEADER_CORRUPT"),
        (b"\xff\xd8\xff\xe0 and then nothing", "HEADER_CORRUPT"),
        (ppm(SMOOTH)[:-1], "HEADER_CORRUPT"),
        (b"P6 4 4 65535\n" + bytes(96), "FORMAT_NOT_ALLOWED"),
        (b"P6 0 4 255\n", "HEADER_CORRUPT"),
        (b"P6 65536 1 255\n" + bytes(3 * 65_536), "SIDE_TOO_LONG"),
        (png(20_000, 10_000), "TOO_MANY_PIXELS"),
        (jpeg((0xC0, frame(20_000, 10_000))), "TOO_MANY_PIXELS"),
        (saved(Image.new("L", (0x7F, 0x7F)), "GIF").replace(b"\x7f\0\x7f\0", b"\xff\x7f\xff\x7f"), "TOO_MANY_PIXELS"),
    ],
)
def test_what_cannot_be_read_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decoder.decode(data)
    assert caught.value.reason == reason
    assert str(caught.value)


def exif_of(kind: int, count: int, value: int, order: str = "<") -> bytes:
    directory = struct.pack(f"{order}HHHIHH", 1, 0x0112, kind, count, value, 0)
    return b"Exif\0\0" + (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8) + directory


ODD_EXIFS = {
    "turned": exif_of(3, 1, 6),
    "big endian": exif_of(3, 1, 6, ">"),
    "two values": exif_of(3, 2, 6),
    "no value": exif_of(3, 0, 6),
    "a long": exif_of(4, 1, 6),
    "nine": exif_of(3, 1, 9),
    "no magic": exif_of(3, 1, 6).replace(b"II*\0", b"II+\0"),
}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", ODD_EXIFS.values(), ids=ODD_EXIFS)
def test_the_pixels_have_the_size_that_the_listing_says_whatever_the_metadata_is(kind: str, exif: bytes) -> None:
    data = saved(Image.fromarray(SMOOTH), kind, exif=exif)
    header = read_header(data)
    assert decoder.decode(data).shape == (header.height, header.width, 3)


def test_a_turn_that_only_xmp_asks_for_is_followed_by_neither_side() -> None:
    texts = PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
    data = saved(Image.fromarray(SMOOTH), "PNG", pnginfo=texts)
    header = read_header(data)
    assert decoder.decode(data).shape == (header.height, header.width, 3) == SMOOTH.shape


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF", "TIFF", "MPO"])
def test_several_frames_or_pages_count_as_the_first(kind: str) -> None:
    first, second = Image.fromarray(SMOOTH), Image.fromarray(255 - SMOOTH)
    options = {"lossless": True} if kind == "WEBP" else {}
    still = decoder.decode(saved(first, "JPEG" if kind == "MPO" else kind, **options)).astype(int)
    moving = decoder.decode(saved(first, kind, save_all=True, append_images=[second, second], **options))
    assert np.abs(still - moving).max() <= (12 if kind == "AVIF" else 0)


def test_a_jpeg_that_needs_pillow_is_turned_as_others_are() -> None:
    turned = saved(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", exif=ODD_EXIFS["turned"])
    assert decoder.decode(turned).shape == (40, 24, 3)
    odd = saved(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", exif=ODD_EXIFS["two values"])
    assert decoder.decode(odd).shape == (24, 40, 3)


def test_resizing_is_pillows_antialiased_bilinear_within_one() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(noise).resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    resized = decoder.resize(noise, 32)
    assert resized.dtype == torch.uint8
    assert np.abs(resized.permute(1, 2, 0).numpy() - expected).max() <= 1


def test_an_image_of_the_right_size_is_left_as_it_is() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(decoder.resize(noise, 32).permute(1, 2, 0).numpy(), noise)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop", ["center", "squash"])
@pytest.mark.parametrize("sides", [(50, 70), (70, 51), (40, 40), (33, 200), (240, 31)])
def test_an_image_is_prepared_as_torchvision_prepares_pillows(
    sides: tuple[int, int], crop: Any, interpolation: Any
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*sides, 3), dtype=np.uint8)
    preprocessing = Preprocessing(
        image_size=28,
        resize_size=33,
        crop=crop,
        interpolation=interpolation,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        source="",
    )
    size = 33 if crop == "center" else (33, 33)
    resized = transforms.Resize(size, transforms.InterpolationMode(interpolation))(Image.fromarray(noise))
    expected = np.asarray(transforms.CenterCrop(28)(resized)).astype(int)
    found = decoder.resample(noise, preprocessing)
    assert (found.shape, found.dtype) == ((3, 28, 28), torch.uint8)
    difference = np.abs(found.permute(1, 2, 0).numpy() - expected)
    assert difference.max() <= (1 if interpolation == "bilinear" else 5)
    assert difference.mean() < 0.4


@pytest.mark.parametrize("sides", [(3, 20_001), (20_000, 4)])
def test_of_a_strip_only_the_middle_is_enlarged(sides: tuple[int, int]) -> None:
    strip = np.zeros((*sides, 3), np.uint8)
    middle = sides[0] // 2, sides[1] // 2
    strip[middle[0] - 1 : middle[0] + 2, middle[1] - 1 : middle[1] + 2] = 255
    preprocessing = Preprocessing.squashed(64, (0.5,) * 3, (0.5,) * 3, "")
    found = decoder.resample(strip, dataclasses.replace(preprocessing, crop="center", resize_size=4000))
    assert found.shape == (3, 64, 64)
    assert found.float().mean() > 200, "the center stays the center"
