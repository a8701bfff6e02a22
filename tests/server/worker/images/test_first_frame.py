"""The first frame of a file, as it is stored."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import AvifImagePlugin, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from manyview_server.image_header import ImageHeader, read_header
from manyview_server.worker.images.first_frame import SizesDiffer, open_first_frame
from support.images.image_files import encoded, with_orientation

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'
LONG = 4


def stored(data: bytes) -> np.ndarray:
    with open_first_frame(data, read_header(data)) as image:
        image.load()
        return np.asarray(image)


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF", **options)
    return buffer.getvalue()


PIXELS = np.arange(48, dtype=np.uint8).reshape(6, 8)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_tiff_is_not_turned(compression: str | None, turn: int) -> None:
    data = tiff(PIXELS, compression=compression, exif=with_orientation(turn))
    assert np.array_equal(stored(data), PIXELS)
    assert read_header(data).orientation == turn


def test_tags_and_texts_that_the_header_does_not_follow_turn_nothing() -> None:
    tags = ImageFileDirectory_v2()
    tags[700] = XMP
    assert np.array_equal(stored(tiff(PIXELS, tiffinfo=tags)), PIXELS)
    odd = ImageFileDirectory_v2()
    odd.tagtype[0x0112] = LONG
    odd[0x0112] = 6
    data = tiff(PIXELS, tiffinfo=odd)
    assert np.array_equal(stored(data), PIXELS)
    assert read_header(data).orientation == 1


def test_a_file_whose_size_is_not_the_stated_one_is_an_error() -> None:
    with pytest.raises(SizesDiffer, match="8 x 6 and 9 x 6"):
        open_first_frame(encoded(8, 6), ImageHeader(extension="png", width=9, height=6))
    with pytest.raises(SizesDiffer):
        open_first_frame(encoded(8, 6), ImageHeader(extension="png", width=8, height=6, orientation=6))


def test_an_animated_avif_gives_its_still_image_and_starts_no_threads() -> None:
    buffer = io.BytesIO()
    first, second = Image.new("RGB", (8, 6), "red"), Image.new("RGB", (8, 6), "blue")
    first.save(buffer, "AVIF", save_all=True, append_images=[second])
    data = buffer.getvalue()
    with open_first_frame(data, read_header(data)) as image:
        assert getattr(image, "n_frames", None) == 1
        red, _, blue = image.convert("RGB").getpixel((4, 3))  # type: ignore[misc]
    assert red > 200 > blue
    assert AvifImagePlugin.DEFAULT_MAX_THREADS == 1


def test_other_formats_of_pillow_are_not_tried() -> None:
    with pytest.raises(OSError, match="cannot identify"):
        open_first_frame(encoded(8, 6, "ICO"), ImageHeader(extension="png", width=8, height=6))
