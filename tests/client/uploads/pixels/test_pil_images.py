"""PIL images: whether they are still what their file shows, and their samples."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from manyview._uploads.pixels import pil_images

SMOOTH = np.stack(np.meshgrid(np.arange(40) * 5, np.arange(24) * 9, [90]), axis=-1)[:, :, 0].astype(np.uint8)
FORMATS: dict[str, dict[str, Any]] = {"JPEG": {}, "PNG": {}, "WEBP": {"lossless": True}, "AVIF": {}}


@pytest.fixture(params=FORMATS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "image"
    Image.fromarray(SMOOTH).save(path, request.param, exif=exif, **FORMATS[request.param])
    return path


def test_an_image_that_was_only_opened_is_its_file(file: Path) -> None:
    with Image.open(file) as image:
        assert pil_images.untouched_file(image) == file.read_bytes()
        assert image.size == (40, 24)
        image.load()  # the open file is still where it was


def test_an_image_whose_pixels_were_read_is_its_file(file: Path) -> None:
    with Image.open(file) as image:
        np.asarray(image)
        assert pil_images.untouched_file(image) == file.read_bytes()


def test_an_image_in_memory_is_its_file_until_it_is_loaded(file: Path) -> None:
    assert pil_images.untouched_file(Image.open(io.BytesIO(file.read_bytes()))) == file.read_bytes()


def shrink(image: Image.Image) -> None:
    image.thumbnail((20, 20))


CHANGES: dict[str, Callable[[Image.Image], Any]] = {
    "paste": lambda image: image.paste((1, 2, 3), (0, 0, 2, 2)),
    "one pixel": lambda image: image.putpixel((3, 3), (1, 2, 3)),
    "drawing": lambda image: ImageDraw.Draw(image).line((0, 0, 9, 9), fill=(9, 9, 9)),
    "thumbnail": shrink,
    "turned in place": lambda image: ImageOps.exif_transpose(image, in_place=True),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_image_that_was_changed_in_place_is_no_longer_its_file(file: Path, change: Callable[..., Any]) -> None:
    with Image.open(file) as image:
        change(image)
        assert pil_images.untouched_file(image) is None


def test_a_draft_is_not_its_file(tmp_path: Path) -> None:
    Image.fromarray(SMOOTH).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        image.draft("RGB", (10, 6))
        assert pil_images.untouched_file(image) is None


def test_a_file_that_was_replaced_or_removed_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(SMOOTH).save(path)
    image = Image.open(path)
    image.load()
    Image.fromarray(SMOOTH[::-1]).save(path)
    assert pil_images.untouched_file(image) is None
    path.unlink()
    assert pil_images.untouched_file(image) is None


def test_an_image_of_another_process_is_not_its_file_if_it_was_in_memory(file: Path) -> None:
    image = Image.open(io.BytesIO(file.read_bytes()))
    image.load()
    other = pickle.loads(pickle.dumps(image))
    assert pil_images.untouched_file(other) is None
    assert np.array_equal(pil_images.samples(other)[0], pil_images.samples(image)[0])


def test_later_frames_and_formats_that_the_server_does_not_read_are_not_taken() -> None:
    file = io.BytesIO()
    frames = [Image.fromarray(SMOOTH), Image.fromarray(SMOOTH[::-1])]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    image = Image.open(file)
    assert pil_images.untouched_file(image) == file.getvalue()
    image.seek(1)
    assert pil_images.untouched_file(image) is None
    file = io.BytesIO()
    frames[0].save(file, "PCX")
    assert pil_images.untouched_file(Image.open(file)) is None


def test_numbers_that_no_image_has_are_an_error_that_names_the_range() -> None:
    with pytest.raises(ValueError, match=r"mode I must lie in \[0, 65535\], not in \[0, 70000\]"):
        pil_images.samples(Image.fromarray(np.array([[0, 70_000]], np.int32)))
    with pytest.raises(ValueError, match=r"floats must lie in \[0, 1\], not in \[0, 255\]"):
        pil_images.samples(Image.fromarray(np.array([[0, 255]], np.float32)))


def test_a_color_of_sixteen_bits_that_is_transparent_becomes_an_alpha_channel() -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([[7, 263]], np.uint16)).save(file, "PNG", transparency=263)
    samples, _ = pil_images.samples(Image.open(file))
    assert samples.tolist() == [[[7, 65_535], [263, 0]]]
