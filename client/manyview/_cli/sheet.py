"""A contact sheet: small pictures in rows, with a line or two below each. Needs Pillow, which is not the client's."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

SIDE = 128
"""Of a picture at most, in pixels."""
GAP = 10
LINE = 14
"""Height of a line of text."""
CAPTION_LINES = 2
MAX_TILES = 400
PICTURES = (".png", ".jpg")
PAPER, INK, MUTED, FRAME = "#ffffff", "#1f2933", "#6b7683", "#1769aa"


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A picture with its caption. `data` is its file, or empty where there is none to show."""

    data: bytes
    caption: tuple[str, ...]
    framed: bool = False


def check(path: Path, *others: str) -> None:
    """Raise ValueError where there could be no picture, before the work for it: `path` has another suffix, unless it is
    one of `others`, or Pillow is missing."""
    suffixes = (*PICTURES, *others)
    if path.suffix not in suffixes:
        raise ValueError(f"--out {path}: expected a {', '.join(suffixes[:-1])} or {suffixes[-1]} file")
    if path.suffix in PICTURES and importlib.util.find_spec("PIL") is None:
        raise ValueError(f"--out {path}: a picture needs Pillow: pip install pillow")


def draw(rows: Sequence[Sequence[Tile]], path: Path) -> int:
    """Write the rows as a picture of the kind that the suffix of `path` names; gives how many tiles it shows.

    Raises ValueError where there is nothing to show.
    """
    from PIL import Image, ImageDraw

    if not any(rows):
        raise ValueError(f"{path}: there is no image to show")
    columns, height = max(map(len, rows)), SIDE + CAPTION_LINES * LINE + GAP
    sheet = Image.new("RGB", (columns * (SIDE + GAP) + GAP, len(rows) * (height + GAP) + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    font = _font()
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            left, top = GAP + column * (SIDE + GAP), GAP + row * (height + GAP)
            _place(sheet, pen, tile, left, top, font)
    sheet.save(path)
    return sum(map(len, rows))


def grid(tiles: Sequence[Tile]) -> list[Sequence[Tile]]:
    """Tiles in rows, a little wider than high."""
    columns = max(1, min(16, round((1.6 * len(tiles)) ** 0.5)))
    return [tiles[start : start + columns] for start in range(0, len(tiles), columns)]


def _place(sheet: Image.Image, pen: Any, tile: Tile, left: int, top: int, font: Any) -> None:
    picture = _thumbnail(tile.data)
    if picture is None:
        pen.rectangle((left, top, left + SIDE - 1, top + SIDE - 1), outline=MUTED)
        pen.text((left + 8, top + SIDE // 2), "not readable", fill=MUTED, font=font)
    else:
        place = (left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2)
        sheet.paste(picture, place)
    if tile.framed:
        pen.rectangle((left - 4, top - 4, left + SIDE + 3, top + SIDE + 3), outline=FRAME, width=3)
    for number, text in enumerate(tile.caption[:CAPTION_LINES]):
        fill = INK if number == 0 else MUTED
        pen.text((left, top + SIDE + 5 + number * LINE), _fitted(text, font), fill=fill, font=font)


def _thumbnail(data: bytes) -> Image.Image | None:
    from PIL import Image, ImageOps

    if not data:
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
            picture = ImageOps.exif_transpose(image).convert("RGB")
    except Exception:  # Pillow's readers raise nearly anything for damaged files
        return None
    scale = SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


def _fitted(text: str, font: Any) -> str:
    """The text, its beginning cut off where it is too long: the end of a path tells more."""
    if font.getlength(text) <= SIDE:
        return text
    while text and font.getlength("…" + text) > SIDE:
        text = text[1:]
    return "…" + text


def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size=11)
