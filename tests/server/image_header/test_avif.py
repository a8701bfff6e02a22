"""Headers of AVIF files: sizes and turns as Pillow finds them, and bitstreams that are larger than the files state."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from manyview_server.image_header import read_header
from support.images.avif_files import Item, avif, box, full_box, mirrored, sequence_header, turned
from support.images.image_files import encoded, refusal, with_orientation, words


@pytest.mark.parametrize(
    ("size", "mode", "options"),
    [
        ((40, 30), "RGB", {}),
        ((41, 31), "RGBA", {}),
        ((1, 1), "L", {}),
        ((300, 200), "RGB", {"subsampling": "4:4:4", "tile_rows": 1, "tile_cols": 1}),
    ],
)
def test_what_pillow_writes_is_read(size: tuple[int, int], mode: str, options: dict[str, Any]) -> None:
    header = read_header(encoded(*size, "AVIF", mode, **options))
    assert (header.extension, header.width, header.height, header.orientation) == ("avif", *size, 1)


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_turn_is_the_one_that_pillow_finds(turn: int) -> None:
    data = encoded(40, 30, "AVIF", exif=with_orientation(turn))
    header = read_header(data)
    assert header.orientation == turn == Image.open(io.BytesIO(data)).getexif().get(0x0112, 1)
    assert (header.width, header.height) == ((40, 30) if turn < 5 else (30, 40))


def test_an_animation_counts_as_the_still_image_that_it_holds() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "AVIF", save_all=True, append_images=[Image.new("RGB", (40, 30), "red")])
    data = buffer.getvalue()
    assert data[8:12] == b"avis"
    assert read_header(data).width == 40


@pytest.mark.parametrize(("quarters", "axis", "turn"), [(1, None, 8), (3, None, 6), (1, 1, 7), (None, 0, 4), (2, 0, 2)])
def test_a_turn_and_a_mirror_are_one_orientation(quarters: int | None, axis: int | None, turn: int) -> None:
    properties = [] if quarters is None else [turned(quarters)]
    properties += [] if axis is None else [mirrored(axis)]
    assert read_header(avif(Item(width=8, height=6, properties=tuple(properties)))).orientation == turn


def test_items_in_the_box_of_item_data_and_brands_that_heic_shares_are_read() -> None:
    for data in (avif(Item(width=8, height=6), method=1), avif(Item(width=8, height=6), brand=b"mif1")):
        assert read_header(data).width == 8


def test_a_bitstream_with_larger_frames_than_the_file_states_is_corrupt() -> None:
    bomb = Item(width=16, height=16, stream=sequence_header(16_384, 16_384))
    reason, message = words(avif(bomb))
    assert (reason, "16384" in message) == ("HEADER_CORRUPT", True)
    later = Item(width=16, height=16, stream=sequence_header(16, 16) + sequence_header(16, 17))
    assert refusal(avif(later)) == "HEADER_CORRUPT"
    assert refusal(avif(Item(width=16, height=16), bomb)) == "HEADER_CORRUPT"
    smaller = Item(width=16, height=16, stream=sequence_header(15, 16))
    assert read_header(avif(smaller)).width == 16


def test_parts_that_are_much_larger_than_the_image_are_corrupt() -> None:
    small = Item(width=16, height=16)
    assert read_header(avif(small, Item(width=1_000, height=1_000))).width == 16
    reason, message = words(avif(small, Item(width=5_000, height=5_000)))
    assert (reason, "4,195,328" in message) == ("HEADER_CORRUPT", True)


@pytest.mark.parametrize(
    "data",
    [
        avif(Item(width=8, height=6, kind=b"hvc1")),
        avif(Item(width=8, height=6, kind=b"iovl")),
    ],
)
def test_an_image_of_another_kind_is_refused(data: bytes) -> None:
    reason, message = words(data)
    assert (reason, "'av01' or 'grid'" in message) == ("FORMAT_NOT_ALLOWED", True)


WHOLE = avif(Item(width=8, height=6))


@pytest.mark.parametrize(
    "data",
    [
        avif(Item(width=8, height=6), primary=2),
        WHOLE[:-1],
        WHOLE[:100],
        WHOLE[:28],
        WHOLE.replace(b"meta", b"free"),
        WHOLE + full_box(b"meta", 0),
        avif(Item(width=8, height=6, properties=(turned(1), turned(1)))),
        avif(Item(width=8, height=6, properties=(full_box(b"ispe", 0, bytes(8)),))),
        avif(Item(width=8, height=6, stream=b"")),
        avif(Item(width=8, height=6, stream=b"\x12\x00")),
        avif(Item(width=0, height=6, stream=sequence_header(1, 1))),
        WHOLE[:28] + box(b"free") * 1_001 + WHOLE[28:],
        WHOLE.replace(b"pitm", b"idat"),
    ],
)
def test_a_damaged_avif_is_corrupt(data: bytes) -> None:
    assert refusal(data) == "HEADER_CORRUPT"
