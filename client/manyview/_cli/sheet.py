"""Contact sheets of images of a data set. They need Pillow, which the client does not require."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyview._results import contact_sheet
from manyview._results.contact_sheet import Tile, require_pillow, without_start

if TYPE_CHECKING:
    from PIL import Image

    from manyview import Client

SIDE = 128
"""The longest side of a picture, in pixels."""
MAX_TILES = 400
_READERS = 8
PICTURES = (".png", ".jpg")


def check(path: Path, *others: str) -> None:
    """Raise ValueError if `path` has a suffix of neither a picture nor `others`, or if it is a picture and Pillow is
    missing. Commands call this before they do the work."""
    suffixes = (*PICTURES, *others)
    if path.suffix not in suffixes:
        raise ValueError(f"--out {path}: expected a {', '.join(suffixes[:-1])} or {suffixes[-1]} file")
    if path.suffix in PICTURES:
        require_pillow()


def tile(data: bytes, *lines: str, framed: bool = False) -> Tile:
    """Return a tile of an image's file. Its picture is missing if `data` is empty or cannot be read."""
    return Tile(picture=_thumbnail(data), lines=[without_start(line, SIDE) for line in lines], framed=framed)


def read(client: Client, dataset: str, images: Sequence[Any]) -> list[bytes]:
    """Return the files of images of a data set. A file that the server has lost is empty."""
    from manyview import DataLoss

    def read_one(image: Any) -> bytes:
        try:
            return client.read_image(dataset, image)
        except DataLoss:
            return b""

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read_one, images))


def save(rows: Sequence[Sequence[Tile]], path: Path) -> None:
    """Write the rows as a picture in the format that the suffix of `path` names. Raises ValueError if there are no
    tiles."""
    if not any(rows):
        raise ValueError(f"{path}: there is no image to show")
    contact_sheet.draw(rows, width=SIDE, height=SIDE).save(path)


def grid(tiles: Sequence[Tile]) -> list[Sequence[Tile]]:
    """Return the tiles in rows of a sheet that is a little wider than high."""
    columns = max(1, min(16, round((1.6 * len(tiles)) ** 0.5)))
    return [tiles[start : start + columns] for start in range(0, len(tiles), columns)]


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
