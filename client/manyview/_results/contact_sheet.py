"""A contact sheet of a preview, drawn with Pillow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from manyview._types import ImageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image, ImageDraw, ImageFont

MARGIN = 12
SMALL_PX, LARGE_PX = 144, 256
"""Views are enlarged by whole factors, pixel by pixel, up to the one, and made smaller to the other."""
NARROWEST_PX = 128
"""Of a column: captions are to be read."""
FONT_PX = 11
LINE_PX = 14
MOST_LINES = 8
NO_BREAK = "\0"
"""Stands for a space at which no line breaks."""
INK, PALE_INK, PAPER = (40, 40, 40), (130, 130, 130), (255, 255, 255)


class Previewed(Protocol):
    """The parts of a `Preview` that the sheet shows."""

    @property
    def keys(self) -> tuple[str, ...]: ...
    @property
    def shapes(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def originals(self) -> tuple[NDArray[np.uint8] | None, ...]: ...
    @property
    def views(self) -> tuple[tuple[NDArray[np.uint8], ...], ...]: ...
    @property
    def pipelines(self) -> tuple[tuple[int, ...], ...]: ...
    @property
    def parameters(self) -> tuple[tuple[dict[str, Any], ...], ...]: ...
    @property
    def decode_size(self) -> int: ...
    @property
    def errors(self) -> dict[int, ImageError]: ...


def draw(preview: Previewed) -> Image.Image:
    """The sheet. Raises ValueError without Pillow."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ModuleNotFoundError:
        raise ValueError("a contact sheet is drawn with Pillow: pip install pillow") from None
    cell = max((shown_side(view.shape[0]) for views in preview.views for view in views), default=SMALL_PX)
    width = max(cell, NARROWEST_PX)
    font = ImageFont.load_default(FONT_PX)
    columns = 1 + max((len(views) for views in preview.views), default=0)
    captions = [[wrapped(text, width, font) for text in texts_of(preview, row)] for row in range(len(preview.keys))]
    heights = [cell + LINE_PX * max(map(len, row)) + MARGIN for row in captions]
    sheet = Image.new("RGB", (MARGIN + columns * (width + MARGIN), MARGIN + LINE_PX + sum(heights)), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column in range(columns):
        title = f"view {column}" if column else "original"
        pen.text((MARGIN + column * (width + MARGIN), MARGIN // 2), title, PALE_INK, font)
    top = MARGIN + LINE_PX
    for row, lines_of in enumerate(captions):
        for column, (picture, lines) in enumerate(zip(pictures(preview, row, cell), lines_of, strict=True)):
            left = MARGIN + column * (width + MARGIN)
            if picture is not None:
                sheet.paste(picture, (left, top))
            write(pen, lines, left, top + cell + 2, font)
        top += heights[row]
    return sheet


def write(pen: ImageDraw.ImageDraw, lines: list[str], left: int, top: int, font: Any) -> None:
    """The first line says what it is, the others what was done."""
    for number, line in enumerate(lines):
        pen.text((left, top + number * LINE_PX), line, PALE_INK if number else INK, font)


def pictures(preview: Previewed, row: int, cell: int) -> Iterator[Image.Image | None]:
    """The original in its own proportions, then the views."""
    from PIL import Image

    original = preview.originals[row]
    if original is None:
        yield None
        return
    height, width = preview.shapes[row]
    scale = cell / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    yield Image.fromarray(original).resize(shape, Image.Resampling.BICUBIC)
    for view in preview.views[row]:
        side = shown_side(view.shape[0])
        how = Image.Resampling.NEAREST if side >= view.shape[0] else Image.Resampling.LANCZOS
        yield Image.fromarray(view).resize((side, side), how)


def shown_side(side: int) -> int:
    """Of a view of `side` pixels."""
    return min(side * max(1, SMALL_PX // side), LARGE_PX)


def texts_of(preview: Previewed, row: int) -> list[str]:
    """The captions of a row; a line break where a new line is to begin."""
    name = preview.keys[row].rpartition("/")[2]
    if row in preview.errors:
        error = preview.errors[row]
        return [f"{name}\n{error.reason}: {error.message}"]
    height, width = preview.shapes[row]
    views = zip(preview.views[row], preview.pipelines[row], preview.parameters[row], strict=True)
    return [
        f"{name}\n{width} x {height}, decoded to {preview.decode_size}",
        *(f"pipeline {pipeline}, {view.shape[0]} px\n{done_in_words(done)}" for view, pipeline, done in views),
    ]


def done_in_words(parameters: dict[str, Any]) -> str:
    """All steps; a line may break between two of them."""
    return ", ".join(step.replace(" ", NO_BREAK) for step in steps(parameters))


def steps(parameters: dict[str, Any]) -> Iterator[str]:
    """What was done, in words: "crop 90x64 at 10,20", "flip", "hue +0.08", …"""
    for name, value in parameters.items():
        match name:
            case "crop":
                yield f"crop {value['width']}x{value['height']} at {value['left']},{value['top']}"
            case "horizontal_flip" | "vertical_flip":
                yield "flip" if name == "horizontal_flip" else "upside down"
            case "quarter_turn" | "rotation":
                yield f"turned {value['degrees']:.0f}°"
            case "color_jitter":
                for change in value["order"]:
                    yield f"hue {value[change]:+.2f}" if change == "hue" else f"{change} x{value[change]:.2f}"
            case "blur":
                yield f"blur {value['sigma']:.1f}"
            case "custom":
                yield from value
            case _:
                yield name


def wrapped(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Lines that fit into `width` pixels, at most `MOST_LINES`; words that are too long are cut off."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            word = word.replace(NO_BREAK, " ")
            longer = f"{line} {word}" if line else word
            if line and font.getlength(longer) > width:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], f"{lines[MOST_LINES - 1]} …"]
    return [_cut(line, width, font) for line in lines]


def _cut(line: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(line) <= width:
        return line
    while len(line) > 1 and font.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line}…"
