from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manyview._cli import sheet
from manyview._results import sheets
from manyview._results.contact_sheet import GAP_PX, LINE_PX
from manyview._results.sheets import tile


def picture(width: int, height: int, color: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), color).save(buffer, "PNG")
    return buffer.getvalue()


def opened(folder: Path) -> Image.Image:
    with Image.open(folder / "sheet.png") as image:
        return image.copy()


def test_pictures_lie_in_their_rows_whole_and_in_proportion(tmp_path: Path) -> None:
    red, blue = picture(400, 200, (255, 0, 0)), picture(10, 10, (0, 0, 255))
    sheet.save([[tile(red, "a"), tile(blue, "b", "c")], [tile(red)]], tmp_path / "sheet.png")
    drawn = opened(tmp_path)
    second = GAP_PX + sheets.SIDE + GAP_PX
    below = second + 2 * LINE_PX
    assert drawn.size == (second + sheets.SIDE + GAP_PX, below + sheets.SIDE + GAP_PX)
    assert drawn.getpixel((GAP_PX + 64, GAP_PX + 64)) == (255, 0, 0)
    assert drawn.getpixel((GAP_PX + 64, GAP_PX + 10)) == (255, 255, 255), "twice as wide as high"
    assert drawn.getpixel((second + 2, GAP_PX + 2)) == (0, 0, 255), "small ones fill their place"
    assert drawn.getpixel((GAP_PX + 64, below + 64)) == (255, 0, 0)
    assert drawn.getpixel((second + 64, below + 64)) == (255, 255, 255), "nothing there"


@pytest.mark.parametrize("data", [b"", b"junk", picture(9, 9, (1, 2, 3))[:40]])
def test_a_picture_that_cannot_be_read_is_a_frame(tmp_path: Path, data: bytes) -> None:
    sheet.save([[tile(data, "x")]], tmp_path / "sheet.png")
    drawn = opened(tmp_path)
    assert drawn.getpixel((GAP_PX, 20)) == (107, 118, 131)


def test_a_picture_is_what_a_network_sees(tmp_path: Path) -> None:
    buffer, grey = io.BytesIO(), io.BytesIO()
    Image.new("RGBA", (9, 9), (200, 0, 0, 0)).save(buffer, "PNG")
    Image.fromarray(np.full((9, 9), 100 << 8, np.uint16)).save(grey, "PNG")
    sheet.save([[tile(buffer.getvalue(), ""), tile(grey.getvalue(), "")]], tmp_path / "sheet.png")
    drawn = opened(tmp_path)
    assert drawn.getpixel((GAP_PX + 64, GAP_PX + 64)) == (255, 255, 255), "transparent"
    assert drawn.getpixel((2 * GAP_PX + sheets.SIDE + 64, GAP_PX + 64)) == (100, 100, 100), "16 bits"


def test_a_query_is_framed(tmp_path: Path) -> None:
    sheet.save([[tile(picture(9, 9, (0, 0, 0)), "x", framed=True)]], tmp_path / "sheet.png")
    assert opened(tmp_path).getpixel((GAP_PX - 3, 50)) == (23, 105, 170)


def test_nothing_to_show_is_an_error(tmp_path: Path) -> None:
    nothing: tuple[list[list[Any]], ...] = ([], [[]])
    for rows in nothing:
        with pytest.raises(ValueError, match="there is no image to show"):
            sheet.save(rows, tmp_path / "sheet.png")


@pytest.mark.parametrize(("count", "columns"), [(0, 1), (1, 1), (10, 4), (100, 13), (400, 16)])
def test_a_grid_is_a_little_wider_than_high(count: int, columns: int) -> None:
    tiles = [tile(b"")] * count
    rows = sheets.grid(tiles)
    assert sum(map(len, rows)) == count
    assert max(map(len, rows), default=1) == columns
