"""Views of a few images, as training makes them, to look at.

Shapes: S pixels on a side of a decoded image, o of a view; arrays are RGB, uint8.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyview._progress.words import number_of
from manyview._results.contact_sheet import NO_BREAK, Tile, draw, require_pillow, wrapped
from manyview._results.view_captions import steps
from manyview._types.images import ImageError
from manyview._types.uploads import SkippedFiles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

_SMALL_PX, _LARGE_PX = 144, 256
"""The sides of views on a sheet: small ones are enlarged by whole factors up to the first, large ones reduced to the
second."""
_NARROWEST_PX = 128
"""The least width of a column, so that its captions are readable."""
_HIDDEN_GRAY = 128
"""The value of hidden patches on a sheet."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Views of a few images. Each field has one item for each image, in their order.

    `shapes`: the height and width of the image. `originals`: the image as training sees it, (S, S, 3), where S is
    `decode_size`. `views`: its views, each (o, o, 3), in the order of the recipe. `pipelines`: the index of the
    pipeline that made each view. `parameters`: for each view a dict of the steps that were applied, in their order;
    crops are in pixels of the original, and patches that training hides are numbered row by row. A sheet shows these
    patches in gray, and `views` show all pixels. `errors` says by place why an image could not be read; it has no
    views. `skipped` counts the files of a folder that were passed over.
    """

    keys: tuple[str, ...]
    image_ids: tuple[str, ...] = field(repr=False)
    shapes: tuple[tuple[int, int], ...] = field(repr=False)
    originals: tuple[NDArray[np.uint8] | None, ...] = field(repr=False)
    views: tuple[tuple[NDArray[np.uint8], ...], ...] = field(repr=False)
    pipelines: tuple[tuple[int, ...], ...] = field(repr=False)
    parameters: tuple[tuple[dict[str, Any], ...], ...] = field(repr=False)
    decode_size: int
    errors: dict[int, ImageError] = field(default_factory=dict)
    skipped: tuple[SkippedFiles, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        errors = f", {number_of(len(self.errors), 'error')}" if self.errors else ""
        views = number_of(sum(map(len, self.views)), "view")
        return f"<manyview.Preview {number_of(len(self), 'image')}, {views}{errors}>"

    def _repr_png_(self) -> bytes | None:
        """Return the sheet for a notebook, or None if Pillow is not installed."""
        try:
            sheet = self.sheet()
        except ValueError:
            return None
        file = io.BytesIO()
        sheet.save(file, "PNG")
        return file.getvalue()

    def sheet(self) -> Image.Image:
        """Return a contact sheet: a row for each image, first the original, then its views with the steps that made
        them. Raises ValueError if Pillow is not installed."""
        require_pillow()
        height = max((_shown_side(view.shape[0]) for views in self.views for view in views), default=_SMALL_PX)
        width = max(height, _NARROWEST_PX)
        num_views = max(map(len, self.views), default=0)
        titles = ["original", *(f"view {number}" for number in range(1, num_views + 1))]
        rows = [list(self._tiles(row, width, height)) for row in range(len(self))]
        return draw(rows, width=width, height=height, titles=titles)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write `sheet` to a file in the format that its suffix names."""
        target = Path(path)
        self.sheet().save(target)
        return target

    def _tiles(self, row: int, width: int, height: int) -> Iterator[Tile]:
        from PIL import Image

        name = self.keys[row].rpartition("/")[2]
        original = self.originals[row]
        if original is None:
            error = self.errors[row]
            yield Tile(picture=None, lines=wrapped(f"{name}\n{error.reason}: {error.message}", width))
            return
        image_height, image_width = self.shapes[row]
        scale = height / max(image_height, image_width)
        size = max(1, round(image_width * scale)), max(1, round(image_height * scale))
        caption = f"{name}\n{image_width} x {image_height}, decoded to {self.decode_size}"
        picture = Image.fromarray(original).resize(size, Image.Resampling.BICUBIC)
        several = len({pipeline for pipelines in self.pipelines for pipeline in pipelines}) > 1
        yield Tile(picture=picture, lines=wrapped(caption, width))
        for view, pipeline, parameters in zip(self.views[row], self.pipelines[row], self.parameters[row], strict=True):
            side = _shown_side(view.shape[0])
            filter = Image.Resampling.NEAREST if side >= view.shape[0] else Image.Resampling.LANCZOS
            words = ", ".join(step.replace(" ", NO_BREAK) for step in steps(parameters))
            which = f"pipeline {pipeline}, " if several else ""
            caption = f"{which}{view.shape[0]} px\n{words}"
            picture = Image.fromarray(_hidden(view, parameters)).resize((side, side), filter)
            yield Tile(picture=picture, lines=wrapped(caption, width))


def _hidden(view: NDArray[np.uint8], parameters: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Return a view with gray squares over the patches that training hides."""
    if "hidden_patches" not in parameters:
        return view
    side, patches = parameters["hidden_patches"]["patch_size"], parameters["hidden_patches"]["patches"]
    shown = view.copy()
    for patch in patches:
        row, column = divmod(patch, view.shape[1] // side)
        shown[row * side : (row + 1) * side, column * side : (column + 1) * side] = _HIDDEN_GRAY
    return shown


def _shown_side(side: int) -> int:
    """Return the side at which a sheet shows a view of `side` pixels."""
    return min(side * max(1, _SMALL_PX // side), _LARGE_PX)
