"""Contact sheets of images of a data set: selections, neighbors of queries, and groups of near-duplicates. They need
Pillow, which the client does not require. The command line imports this module before it shows anything, so what takes
long to import is imported where it is needed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from manyview._results.contact_sheet import Tile, shortened
from manyview._types.images import StoredImage
from manyview._types.neighbors import DuplicateGroup, Neighbor, QueryNeighbors
from manyview._types.selections import Sample, Selection
from manyview._types.server import Limits

if TYPE_CHECKING:
    from PIL import Image

Rows = list[Sequence[Tile]]
Read = Callable[[Any], bytes]
"""Returns the file of an image of a data set."""

SIDE = 128
"""The longest side of a picture, in pixels."""
MAX_TILES = 400
MAX_GROUPS, MAX_MEMBERS = 50, 12
_READERS = 8


def of_found(
    found: Selection | QueryNeighbors | DuplicateGroup | Sequence[QueryNeighbors] | Sequence[DuplicateGroup],
    queries: Any,
    read_image: Callable[[str, Any], bytes],
    limits: Limits,
) -> Rows:
    """Return the tiles of any answer. `queries` are the images that were given for neighbors, or None for keys of the
    data set. Raises ValueError if there is nothing to show."""
    if isinstance(found, Selection):
        return of_selection(partial(read_image, found.dataset), found)
    answers: Any = [found] if isinstance(found, QueryNeighbors | DuplicateGroup) else found
    from manyview import _names
    from manyview._uploads.sources import open_source

    if not answers:
        raise ValueError("there is no image to show")
    read = partial(read_image, answers[0].dataset)
    if isinstance(answers[0], DuplicateGroup):
        return of_groups(read, answers)
    are_stored, given = _names.are_stored([answer.query for answer in answers] if queries is None else queries)
    if are_stored or queries is None:
        return of_neighbors(read, answers, files(read, list(given)[: len(most_queries(answers))]))
    return of_neighbors(
        read, answers, (image.data for image in open_source(given, max_image_bytes=limits.max_image_bytes))
    )


def of_images(read: Read, images: Sequence[StoredImage]) -> Rows:
    """Return the tiles of images as they are listed, with their keys and labels."""
    shown = images[:MAX_TILES]
    return grid([tile(data, one.key, one.label) for data, one in zip(files(read, shown), shown, strict=True)])


def of_selection(read: Read, samples: Sequence[Sample]) -> Rows:
    """Return the tiles of selected images, with their ranks, scores and labels."""
    shown = samples[:MAX_TILES]
    captions = [
        "  ".join(filter(None, (f"{rank}.", score(sample.score), sample.image.label)))
        for rank, sample in enumerate(shown, start=1)
    ]
    data = files(read, shown)
    return grid([tile(*each) for each in zip(data, captions, (one.key for one in shown), strict=True)])


def of_neighbors(read: Read, found: Sequence[QueryNeighbors], queries: Iterable[bytes]) -> Rows:
    """Return a row for each query: the query, which is framed, and its neighbors. `queries` are the files of queries in
    their order; they are read when they are needed."""
    return [
        [tile(data, answer.query, framed=True), *_near(read, answer)]
        for answer, data in zip(most_queries(found), queries, strict=False)
    ]


def most_queries(found: Sequence[QueryNeighbors]) -> Sequence[QueryNeighbors]:
    """Return the first queries, as many as a sheet shows."""
    return found[: max(1, MAX_TILES // (1 + max(map(len, found), default=0)))]


def of_groups(read: Read, groups: Sequence[DuplicateGroup]) -> Rows:
    """Return a row for each of the first groups of near-duplicates."""
    return [_near(read, group[:MAX_MEMBERS]) for group in groups[:MAX_GROUPS]]


def score(value: float | None) -> str:
    """Return the score of a selected image as text."""
    return "-" if value is None else f"{value:.4f}"


def tile(data: bytes, *lines: str, framed: bool = False) -> Tile:
    """Return a tile of an image's file. Its picture is missing if `data` is empty or cannot be read."""
    return Tile(picture=_thumbnail(data), lines=[shortened(line, SIDE) for line in lines], framed=framed)


def grid(tiles: Sequence[Tile]) -> Rows:
    """Return the tiles in rows of a sheet that is a little wider than high."""
    columns = max(1, min(16, round((1.6 * len(tiles)) ** 0.5)))
    return [tiles[start : start + columns] for start in range(0, len(tiles), columns)]


def files(read: Read, images: Sequence[Any]) -> list[bytes]:
    """Return the files of images of a data set. A file that the server has lost is empty."""
    from manyview._errors import DataLoss

    def read_one(image: Any) -> bytes:
        try:
            return read(image)
        except DataLoss:
            return b""

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read_one, images))


def _near(read: Read, near: Sequence[Neighbor]) -> list[Tile]:
    return [
        tile(data, f"{one.distance:.4f}  {one.image.label}".rstrip(), one.key)
        for data, one in zip(files(read, near), near, strict=True)
    ]


def _thumbnail(data: bytes) -> Image.Image | None:
    from PIL import Image

    if not data:
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
            picture = _rgb(image)
    except Exception:  # Pillow's readers raise nearly anything for damaged files
        return None
    scale = SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


def _rgb(image: Image.Image) -> Image.Image:
    """Return an image as a network sees it by default: upright, transparency on white, the upper 8 bits of 16."""
    from PIL import Image

    from manyview._uploads.pixels import pil_images

    samples, _ = pil_images.samples(image)
    if samples.dtype.itemsize == 2:
        samples = (samples >> 8).astype("uint8")
    picture = Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)
    background = Image.new("RGB", picture.size, "white")
    background.paste(picture, mask=picture.getchannel("A") if picture.mode in ("LA", "RGBA") else None)
    return background
