"""The same image as a path, as a PIL image and as an array is the same pixels to the server, bit for bit."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manyview._uploads.sources import open_source
from manyview_server.worker.images.decode_memory import DecodeMemory
from manyview_server.worker.images.guarded_decoder import GuardedDecoder
from manyview_server.worker.images.rgb import PixelRule
from support.images import profiles

SIDE = 24
COLORS = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
ALPHA = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
GREY = COLORS[:, :, 0]
SIXTEEN = GREY.astype(np.uint16) * 257
RULES = [PixelRule(), PixelRule(transparency="black"), PixelRule(transparency="drop", color_profile="ignore")]


def seen(image: Any) -> list[np.ndarray[Any, Any]]:
    """Return the pixels that the server makes of an image, by each rule."""
    (sent,) = open_source([image], max_image_bytes=10**7)
    assert sent.error is None
    guarded = GuardedDecoder("x", None, DecodeMemory())
    return [guarded.decode(sent.data, SIDE, rule, item=0).pixels.numpy() for rule in RULES]


def assert_same(images: dict[str, Any]) -> None:
    first, *others = images
    expected = seen(images[first])
    for name in others:
        assert all(map(np.array_equal, seen(images[name]), expected)), f"{name} is not {first}"


def palette() -> Image.Image:
    return Image.fromarray(COLORS).convert("P", palette=Image.Palette.ADAPTIVE)


LA = np.dstack([GREY, ALPHA])
RGBA = np.dstack([COLORS, ALPHA])
KINDS: dict[str, tuple[Image.Image, dict[str, Any], np.ndarray[Any, Any] | None]] = {
    # The image, how it is saved as PNG, and the same as an array, if there is one.
    "1": (Image.fromarray(GREY > 99), {}, GREY > 99),
    "L": (Image.fromarray(GREY), {}, GREY),
    "LA": (Image.fromarray(LA), {}, LA),
    "RGB": (Image.fromarray(COLORS), {}, COLORS),
    "RGBA": (Image.fromarray(RGBA), {}, RGBA),
    "P": (palette(), {}, np.asarray(palette().convert("RGB"))),
    "P with transparent colors": (palette(), {"transparency": bytes(range(256))}, None),
    "P with a key": (palette(), {"transparency": 3}, None),
    "L with a key": (Image.fromarray(GREY), {"transparency": int(GREY[0, 0])}, None),
    "RGB with a key": (Image.fromarray(COLORS), {"transparency": tuple(COLORS[0, 0].tolist())}, None),
    "16 bits": (Image.fromarray(SIXTEEN), {}, SIXTEEN),
    "16 bits with a key": (Image.fromarray(SIXTEEN), {"transparency": int(SIXTEEN[0, 0])}, None),
    "12 bits in 16": (Image.fromarray(SIXTEEN >> 4), {}, (SIXTEEN >> 4).astype(">u2")),
    "RGB with a profile": (Image.fromarray(COLORS), {"icc_profile": profiles.display_p3()}, None),
    "16 bits with a profile": (Image.fromarray(SIXTEEN), {"icc_profile": profiles.linear_grey()}, None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_png_is_the_same_as_a_pil_image_and_as_an_array(kind: str, tmp_path: Path) -> None:
    image, options, array = KINDS[kind]
    path = tmp_path / "image.png"
    image.save(path, **options)
    made = {} if options else {"made": image}
    as_array = {} if array is None else {"array": array}
    with Image.open(path) as opened, Image.open(path) as other:
        assert_same({"path": path, "opened": opened, "changed": other.copy(), **made, **as_array})


@pytest.mark.parametrize("kind", [kind for kind, (_, options, _) in KINDS.items() if not options])
def test_a_tiff_is_the_same_as_a_pil_image(kind: str, tmp_path: Path) -> None:
    image, _, _ = KINDS[kind]
    path = tmp_path / "image.tif"
    image.save(path)
    with Image.open(path) as opened, Image.open(path) as other:
        assert_same({"path": path, "opened": opened, "changed": other.copy(), "made": image})


@pytest.mark.parametrize("kind", ["GIF", "BMP"])
def test_other_formats_are_the_same_as_a_pil_image(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{kind.lower()}"
    palette().save(path)
    with Image.open(path) as opened, Image.open(path) as other:
        assert_same({"path": path, "opened": opened, "changed": other.copy(), "made": palette()})


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_an_opened_jpeg_is_its_file(mode: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "image.jpg"
    Image.fromarray(COLORS).convert(mode).save(path, exif=exif)
    with Image.open(path) as opened, Image.open(path) as loaded:
        loaded.load()
        assert_same({"path": path, "opened": opened, "loaded": loaded, "a file": io.BytesIO(path.read_bytes())})


@pytest.mark.parametrize("profile", [b"", profiles.cmyk(), b"broken"], ids=["none", "inks", "broken"])
def test_inks_are_the_same_as_a_changed_pil_image(profile: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(COLORS).convert("CMYK").save(path, icc_profile=profile)
    with Image.open(path) as opened:
        (by_path, _, kept), (changed, _, _) = seen(path), seen(opened.copy())
    assert np.array_equal(changed, by_path)
    assert np.array_equal(by_path, kept) == (profile != profiles.cmyk())


@pytest.mark.parametrize("channels", [GREY, LA, COLORS, RGBA], ids=["L", "LA", "RGB", "RGBA"])
def test_floats_and_sixteen_bits_are_the_same_as_eight(channels: np.ndarray[Any, Any]) -> None:
    sixteen = channels.astype(np.uint16) * 257
    assert_same({"uint8": channels, "float32": channels.astype(np.float32) / 255, "uint16": sixteen})


def test_wide_numbers_of_pil_are_the_same_as_an_array(tmp_path: Path) -> None:
    floats, integers = Image.fromarray(GREY.astype(np.float32) / 255), Image.fromarray(SIXTEEN.astype(np.int32))
    floats.save(tmp_path / "floats.tif")
    integers.save(tmp_path / "integers.tif")
    files = {name: tmp_path / f"{name}.tif" for name in ("floats", "integers")}
    assert_same({"uint8": GREY, "F": floats, "I": integers, **files})
