"""A contact sheet: rows of pictures with captions. It is drawn with Pillow, which the client does not require."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

GAP_PX = 12
FONT_PX, LINE_PX = 11, 14
MAX_LINES = 8
NO_BREAK = "\0"
"""A space at which `wrapped` must not break a line."""
INK, MUTED, PAPER, FRAME = "#1f2933", "#6b7683", "#ffffff", "#1769aa"


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A picture and the lines of its caption. A missing picture is shown as an empty frame."""

    picture: Image.Image | None
    lines: Sequence[str] = ()
    framed: bool = False


def require_pillow() -> None:
    """Raise ValueError if Pillow is not installed."""
    if importlib.util.find_spec("PIL") is None:
        raise ValueError("a contact sheet needs Pillow: pip install pillow")


def draw(rows: Sequence[Sequence[Tile]], *, width: int, height: int, titles: Sequence[str] = ()) -> Image.Image:
    """Return a sheet of tiles whose pictures have at most `width` and `height` pixels. `titles` stand above the
    columns."""
    from PIL import Image, ImageDraw

    columns = max(map(len, rows), default=1)
    heights = [height + GAP_PX + LINE_PX * max((len(tile.lines) for tile in row), default=0) for row in rows]
    top = GAP_PX + (LINE_PX if titles else 0)
    sheet = Image.new("RGB", (GAP_PX + columns * (width + GAP_PX), top + sum(heights)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        pen.text((GAP_PX + column * (width + GAP_PX), GAP_PX // 2), title, MUTED, _font())
    for row, row_height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            _draw_tile(sheet, pen, tile, GAP_PX + column * (width + GAP_PX), top, width, height)
        top += row_height
    return sheet


def _draw_tile(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, tile: Tile, left: int, top: int, width: int, height: int
) -> None:
    if tile.picture is None:
        pen.rectangle((left, top, left + width - 1, top + height - 1), outline=MUTED)
        pen.text((left + 8, top + height // 2), "not readable", MUTED, _font())
    else:
        place = (left + (width - tile.picture.width) // 2, top + (height - tile.picture.height) // 2)
        sheet.paste(tile.picture, place)
    if tile.framed:
        pen.rectangle((left - 4, top - 4, left + width + 3, top + height + 3), outline=FRAME, width=3)
    for number, line in enumerate(tile.lines):
        pen.text((left, top + height + 4 + number * LINE_PX), line, MUTED if number else INK, _font())


def wrapped(text: str, width: int) -> list[str]:
    """Return lines that fit into `width` pixels, at most `MAX_LINES`. Words that are too long lose their middle."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        lines += _wrapped_paragraph(paragraph, width)
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], f"{lines[MAX_LINES - 1]} …"]
    return [_without_middle(line, width) for line in lines]


def _wrapped_paragraph(text: str, width: int) -> Iterator[str]:
    line = ""
    for part in text.split(" "):
        word = part.replace(NO_BREAK, " ")
        longer = f"{line} {word}" if line else word
        if line and _length(longer) > width:
            yield line
            line = word
        else:
            line = longer
    yield line


def shortened(text: str, width: int) -> str:
    """Return a path without its first folders, as far as they do not fit into `width` pixels. A name that does not fit
    loses its middle, because names of one folder often have the same start or the same end."""
    if _length(text) <= width:
        return text
    name = text.rpartition("/")[2]
    if _length(f"…/{name}") > width:
        return _without_middle(name, width)
    while _length(f"…{text}") > width:
        text = text[1:]
    return f"…{text}"


def _without_middle(text: str, width: int) -> str:
    kept = len(text)
    shown = text
    while kept > 1 and _length(shown) > width:
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return shown


def _length(text: str) -> float:
    return _font().getlength(text)


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(FONT_PX)
