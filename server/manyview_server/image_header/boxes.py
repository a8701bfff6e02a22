"""The boxes of an AVIF or HEIC file (ISO/IEC 14496-12 and 23008-12): the items, their properties and their places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from manyview_server.image_header.header import corrupt

MAX_BOXES = 1_000
"""The most boxes at one level."""
MAX_ITEMS = 1_000
"""The most items, properties, and pieces of one item."""

FILE, ITEM_DATA = 0, 1
"""The construction methods of `iloc` that are read: places in the file, and in the box `idat`."""


class Cursor:
    """Reads big-endian integers from a part of a file."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self._data = data
        self.at = at
        self.end = end

    def number(self, num_bytes: int) -> int:
        """Return the next unsigned integer. Raises HeaderRefused at the end of the part."""
        return int.from_bytes(self.take(num_bytes), "big")

    def take(self, num_bytes: int) -> bytes:
        """Return the next bytes. Raises HeaderRefused at the end of the part."""
        if self.at + num_bytes > self.end:
            raise corrupt("a box of the file is cut off")
        self.at += num_bytes
        return self._data[self.at - num_bytes : self.at]

    def count(self, num_bytes: int) -> int:
        """Return the next integer as a number of items. Raises HeaderRefused if there are too many."""
        number = self.number(num_bytes)
        if number > MAX_ITEMS:
            raise corrupt(f"the file has {number:,} items or properties; at most {MAX_ITEMS:,} are allowed")
        return number

    def again(self) -> Cursor:
        """Return a cursor that starts here."""
        return Cursor(self._data, self.at, self.end)

    def version(self) -> int:
        """Read the version and the flags of a full box, and return the version."""
        return self.number(4) >> 24

    def boxes(self) -> Iterator[tuple[bytes, Cursor]]:
        """Yield (name, contents) of each box from here to the end. The last one may be cut off."""
        for _ in range(MAX_BOXES):
            if self.at + 8 > self.end:
                return
            start = self.at
            size, name = self.number(4), self.take(4)
            if size == 1:
                size = self.number(8)
            elif size == 0:
                size = self.end - start
            if start + size < self.at:
                raise corrupt(f"a box of the file states {size} bytes, fewer than its header has")
            yield name, Cursor(self._data, self.at, min(start + size, self.end))
            self.at = start + size
        raise corrupt(f"the file has more than {MAX_BOXES:,} boxes")


@dataclass(frozen=True, slots=True)
class Place:
    """A piece of an item. `method` is `FILE` or `ITEM_DATA`."""

    method: int
    offset: int
    length: int
    """0 means: to the end."""


@dataclass(slots=True)
class Items:
    """The items of an image file, as the box `meta` lists them."""

    primary: int | None = None
    kinds: dict[int, bytes] = field(default_factory=dict)
    """The type of each item."""
    properties: list[tuple[bytes, Cursor]] = field(default_factory=list)
    indices: dict[int, list[int]] = field(default_factory=dict)
    """The properties of each item, as indices that begin at 0."""
    places: dict[int, list[Place]] = field(default_factory=dict)
    item_data: Cursor | None = None

    def of(self, item: int, name: bytes) -> Iterator[Cursor]:
        """Yield an item's properties of this name."""
        for index in self.indices.get(item, []):
            if index < len(self.properties) and self.properties[index][0] == name:
                yield self.properties[index][1].again()


def read_items(data: bytes) -> Items:
    """Read the box `meta` of a file. Raises HeaderRefused."""
    found = [contents for name, contents in Cursor(data, 0, len(data)).boxes() if name == b"meta"]
    if len(found) != 1:
        raise corrupt(f"the file has {len(found)} boxes 'meta'; it must have one")
    meta, items, seen = found[0], Items(), set[bytes]()
    meta.version()
    for name, contents in meta.boxes():
        if name in READERS and name in seen:
            raise corrupt(f"the file has two boxes {name.decode()!r}")
        seen.add(name)
        if name in READERS:
            READERS[name](contents, items)
    return items


def _read_primary(box: Cursor, items: Items) -> None:
    items.primary = box.number(4 if box.version() else 2)


def _read_kinds(box: Cursor, items: Items) -> None:
    box.count(4 if box.version() else 2)
    for name, entry in box.boxes():
        version = entry.version()
        if name == b"infe" and version in (2, 3):
            item = entry.number(4 if version == 3 else 2)
            entry.number(2)
            items.kinds[item] = entry.take(4)


def _read_properties(box: Cursor, items: Items) -> None:
    for name, contents in box.boxes():
        if name == b"ipco":
            items.properties.extend(contents.boxes())
        elif name == b"ipma":
            _read_associations(contents, items)


def _read_associations(box: Cursor, items: Items) -> None:
    head = box.number(4)
    id_bytes, index_bytes = 4 if head >> 24 else 2, 2 if head & 1 else 1
    for _ in range(box.count(4)):
        item = box.number(id_bytes)
        mask = (1 << 8 * index_bytes - 1) - 1  # the first bit says whether a reader must know the property
        indices = [(box.number(index_bytes) & mask) - 1 for _ in range(box.number(1))]
        items.indices.setdefault(item, []).extend(index for index in indices if index >= 0)


def _read_places(box: Cursor, items: Items) -> None:
    version = box.version()
    sizes = box.number(2)
    offset_bytes, length_bytes, base_bytes, index_bytes = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(box.count(2 if version < 2 else 4)):
        item = box.number(2 if version < 2 else 4)
        method = box.number(2) & 15 if version else FILE
        box.number(2)
        base = box.number(base_bytes)
        places = items.places.setdefault(item, [])
        for _ in range(box.count(2)):
            box.number(index_bytes if version else 0)
            offset = base + box.number(offset_bytes)
            places.append(Place(method, offset, box.number(length_bytes)))


def _read_item_data(box: Cursor, items: Items) -> None:
    items.item_data = box


READERS = {
    b"pitm": _read_primary,
    b"iinf": _read_kinds,
    b"iprp": _read_properties,
    b"iloc": _read_places,
    b"idat": _read_item_data,
}
