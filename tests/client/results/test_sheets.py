"""A picture of what was selected, is near or is duplicated, from the client itself."""

from __future__ import annotations

import importlib.util
import io
import re
from pathlib import Path

import pytest
from PIL import Image

import manyview
from manyview._results.contact_sheet import FRAME, GAP_PX
from manyview._results.sheets import SIDE

MODEL = "backbones/resnet18"
COLORS = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255)}


@pytest.fixture
def folder(client: manyview.Client, tmp_path: Path) -> Path:
    """Three squares in the data set "squares"."""
    for name, color in COLORS.items():
        Image.new("RGB", (8, 8), color).save(tmp_path / f"{name}.png")
    client.upload(tmp_path, "squares", progress=False)
    return tmp_path


def colors(sheet: Image.Image) -> list[str]:
    """The pictures of the first row, from left to right."""
    by_value = {value: name for name, value in COLORS.items()}
    places = range(GAP_PX, sheet.width - SIDE, SIDE + GAP_PX)
    return [by_value[sheet.getpixel((left + SIDE // 2, GAP_PX + SIDE // 2))] for left in places]  # type: ignore[index]


def has_frame(sheet: Image.Image) -> bool:
    ink = tuple(int(part, 16) for part in re.findall("..", FRAME[1:]))
    return sheet.getpixel((GAP_PX - 3, 50)) == ink


def test_a_selection_is_a_grid(client: manyview.Client, folder: Path) -> None:
    found = client.select("squares", 2, model=MODEL)
    assert colors(client.sheet(found)) == [Path(key).stem for key in found.keys]


def test_each_query_is_framed_and_stands_before_its_neighbors(client: manyview.Client, folder: Path) -> None:
    files = [folder / "blue.png"]
    found = client.neighbors("squares", files, model=MODEL, num_neighbors=2)
    sheet = client.sheet(found, files)
    assert has_frame(sheet)
    assert colors(sheet) == ["blue", *(Path(near.key).stem for near in found[0])]
    of_keys = client.neighbors("squares", keys=["green.png"], model=MODEL, num_neighbors=2)
    assert colors(client.sheet(of_keys))[0] == "green", "the data set has the query itself"
    assert colors(client.sheet(of_keys[0]))[0] == "green"
    listed = list(client.images("squares"))[:1]
    assert colors(client.sheet(client.neighbors("squares", listed, model=MODEL), listed))[0] == Path(listed[0].key).stem


def test_a_group_of_duplicates_is_a_row(client: manyview.Client, folder: Path) -> None:
    groups = client.duplicates("squares", model=MODEL, max_distance=2.0)
    assert not has_frame(client.sheet(groups))
    assert colors(client.sheet(groups[0])) == [Path(near.key).stem for near in groups[0]]


def test_there_must_be_something_to_show_and_pillow_to_show_it(
    client: manyview.Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="there is no image to show"):
        client.sheet([])
    shown = io.BytesIO()
    client.sheet(client.select("squares", 1, strategy="random")).save(shown, "PNG")
    assert shown.tell() > 100
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="pip install pillow"):
        client.sheet([])
