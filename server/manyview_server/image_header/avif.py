"""The header of an AVIF (AOM's AV1 Image File Format) and the size that its bitstreams state.

An AVIF says with `irot` and `imir` how to turn its pixels. As its specification demands, EXIF has no say.
"""

from __future__ import annotations

from manyview_server.image_header.av1 import largest_frame
from manyview_server.image_header.boxes import FILE, ITEM_DATA, Items, Place, read_items
from manyview_server.image_header.header import HeaderRefused, ImageHeader, corrupt, sized

CODED, GRID = b"av01", b"grid"
MAX_EXTRA_AREAS = 4
"""All coded items together (alpha, gain map, thumbnail, tiles) may have this many times the pixels of the image."""
SMALL_PIXELS = 1 << 22
"""They may have this many pixels more, because a tile may be larger than a small image."""

TURNED = {0: 1, 1: 8, 2: 3, 3: 6}
"""The EXIF orientation for each angle of `irot`, in quarters of a turn against the clock."""
MIRRORED = {1: (4, 2), 8: (5, 7), 3: (2, 4), 6: (7, 5)}
"""The orientation for each axis of `imir`, applied after the turn."""


def read_avif(data: bytes) -> ImageHeader:
    """Read the header of an AVIF. Raises HeaderRefused."""
    items = read_items(data)
    primary = items.primary
    if primary is None or primary not in items.kinds:
        raise corrupt("the AVIF does not say which of its images is the main one")
    if items.kinds[primary] not in (CODED, GRID):
        kind = items.kinds[primary].decode("ascii", "replace")
        raise HeaderRefused("FORMAT_NOT_ALLOWED", f"AVIF whose image is {kind!r}; it must be 'av01' or 'grid'")
    width, height = _stated_size(items, primary)
    header = sized("avif", width, height, _orientation(items, primary))
    _check_streams(data, items, SMALL_PIXELS + MAX_EXTRA_AREAS * width * height)
    return header


def _stated_size(items: Items, item: int) -> tuple[int, int]:
    sizes = []
    for box in items.of(item, b"ispe"):
        box.version()
        sizes.append((box.number(4), box.number(4)))
    if len(sizes) != 1:
        raise corrupt(f"an image of the AVIF has {len(sizes)} sizes; it must have one")
    return sizes[0]


def _orientation(items: Items, item: int) -> int:
    turns = [TURNED[box.number(1) & 3] for box in items.of(item, b"irot")]
    mirrors = [box.number(1) & 1 for box in items.of(item, b"imir")]
    if len(turns) > 1 or len(mirrors) > 1:
        raise corrupt("the AVIF turns or mirrors its image twice")
    turn = turns[0] if turns else 1
    return MIRRORED[turn][mirrors[0]] if mirrors else turn


def _check_streams(data: bytes, items: Items, max_pixels: int) -> None:
    """Check that no bitstream has larger frames than its item states, and that all together are not too large."""
    num_bytes, num_pixels = 0, 0
    for item in (item for item, kind in items.kinds.items() if kind == CODED):
        pieces = [_piece(data, items, place) for place in items.places.get(item, [])]
        num_bytes += sum(len(piece) for piece in pieces)
        if num_bytes > len(data):
            raise corrupt("the images of the AVIF overlap")
        width, height = _stated_size(items, item)
        frame = largest_frame(b"".join(pieces))
        if frame is None:
            raise corrupt("an image of the AVIF has no AV1 sequence header")
        if frame[0] > width or frame[1] > height:
            stated = f"an image of the AVIF states {width} x {height} pixels"
            raise corrupt(f"{stated}, but its bitstream {frame[0]} x {frame[1]}")
        num_pixels += width * height
        if num_pixels > max_pixels:
            raise corrupt(
                f"the parts of the AVIF have {num_pixels:,} pixels or more; at most {max_pixels:,} are allowed"
            )


def _piece(data: bytes, items: Items, place: Place) -> bytes:
    if place.method == FILE:
        start, end = 0, len(data)
    elif place.method == ITEM_DATA and items.item_data is not None:
        start, end = items.item_data.at, items.item_data.end
    else:
        raise corrupt(f"an image of the AVIF lies in a place of an unknown kind ({place.method})")
    first = start + place.offset
    last = first + place.length if place.length else end
    if first >= end or last > end:
        raise corrupt("an image of the AVIF is cut off")
    return data[first:last]
