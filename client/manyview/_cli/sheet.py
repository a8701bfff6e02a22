"""Contact sheets as files: which files they may be, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from manyview._cli.paths import require_folder_of
from manyview._results import contact_sheet, sheets
from manyview._results.contact_sheet import Tile, require_pillow

PICTURES = (".png", ".jpg")


def check(path: Path, *others: str) -> None:
    """Raise ValueError if `path` has a suffix of neither a picture nor `others`, or if it is a picture and Pillow is
    missing, and FileNotFoundError if its folder is missing. Commands call this before they do the work."""
    suffixes = (*PICTURES, *others)
    if path.suffix not in suffixes:
        raise ValueError(f"--out {path}: expected a {', '.join(suffixes[:-1])} or {suffixes[-1]} file")
    require_folder_of(path)
    if path.suffix in PICTURES:
        require_pillow()


def save(rows: Sequence[Sequence[Tile]], path: Path) -> None:
    """Write the rows as a picture in the format that the suffix of `path` names. Raises ValueError if there are no
    tiles."""
    if not any(rows):
        raise ValueError(f"{path}: there is no image to show")
    contact_sheet.draw(rows, width=sheets.SIDE, height=sheets.SIDE).save(path)
