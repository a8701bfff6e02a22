"""The boxes of an AVIF."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyview_server.image_header import HeaderRefused
from manyview_server.image_header.boxes import Cursor, Place, read_items
from support.images.avif_files import Item, avif, box, full_box, turned


def test_the_items_of_a_file_have_their_kinds_places_and_properties() -> None:
    items = read_items(avif(Item(width=8, height=6, properties=(turned(3),)), Item(width=4, height=4), primary=2))
    assert items.primary == 2
    assert items.kinds == {1: b"av01", 2: b"av01"}
    assert [len(places) for places in items.places.values()] == [1, 1]
    assert [rotation.number(1) for rotation in items.of(1, b"irot")] == [3]
    assert list(items.of(2, b"irot")) == list(items.of(3, b"ispe")) == []


def test_large_numbers_of_items_and_wide_indices_are_read() -> None:
    places = struct.pack(">IHHIHIII", 70_000, 1, 0, 5, 1, 9, 100, 20)
    meta = full_box(
        b"meta",
        0,
        full_box(b"pitm", 1, struct.pack(">I", 70_000)),
        full_box(b"iloc", 2, b"\x44\x44", struct.pack(">I", 1), places),
        full_box(b"iinf", 1, struct.pack(">I", 1), full_box(b"infe", 3, struct.pack(">IH", 70_000, 0), b"av01\0")),
        box(
            b"iprp",
            box(b"ipco", turned(1)),
            box(b"ipma", b"\x01\x00\x00\x01", struct.pack(">IIBH", 1, 70_000, 1, 0x8001)),
        ),
    )
    items = read_items(meta)
    assert (items.primary, items.kinds) == (70_000, {70_000: b"av01"})
    assert items.places == {70_000: [Place(1, 105, 20)]}
    assert [rotation.number(1) for rotation in items.of(70_000, b"irot")] == [1]


def test_a_box_of_64_bits_and_a_box_to_the_end_are_read() -> None:
    data = struct.pack(">I4sQ", 1, b"long", 18) + b"ab" + struct.pack(">I4s", 0, b"last") + b"xyz"
    found = [(name, contents.take(contents.end - contents.at)) for name, contents in Cursor(data, 0, len(data)).boxes()]
    assert found == [(b"long", b"ab"), (b"last", b"xyz")]


@pytest.mark.parametrize(
    "data",
    [
        box(b"free"),
        full_box(b"meta", 0) * 2,
        full_box(b"meta", 0, full_box(b"pitm", 0)),
        full_box(b"meta", 0, full_box(b"pitm", 0, b"\0\1") * 2),
        full_box(b"meta", 0, struct.pack(">I4s", 4, b"bad!")),
        full_box(b"meta", 0, full_box(b"iloc", 1, b"\x44\x00", struct.pack(">H", 1_001))),
        full_box(b"meta", 0, box(b"free") * 1_001),
    ],
)
def test_boxes_that_make_no_sense_are_corrupt(data: bytes) -> None:
    with pytest.raises(HeaderRefused):
        read_items(data)


WHOLE = avif(Item(width=8, height=6), Item(width=4, height=4))


@given(st.data())
def test_a_damaged_file_is_read_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with suppress(HeaderRefused):
        assert len(read_items(bytes(damaged)).kinds) <= 1_000
