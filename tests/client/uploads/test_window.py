"""The upload window as a state machine."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import manyview
from manyview._uploads.encoded_image import EncodedImage
from manyview._uploads.window import Window, chain


def encoded(index: int, num_bytes: int = 10) -> EncodedImage:
    return EncodedImage(f"{index}", bytes([index % 256]) * num_bytes)


@given(
    sizes=st.lists(st.integers(1, 500), min_size=1, max_size=30),
    max_batches=st.integers(1, 5),
    max_bytes=st.integers(100, 1500),
    choices=st.lists(st.sampled_from(["take", "ack", "rewind"]), max_size=120),
)
def test_no_order_of_events_exceeds_the_window_or_loses_a_batch(
    sizes: list[int], max_batches: int, max_bytes: int, choices: list[str]
) -> None:
    window = Window()
    window.limit(max_batches, max_bytes)
    for index, size in enumerate(sizes):
        window.add([encoded(index, size)])
    on_their_way: list[Any] = []
    acked: list[int] = []
    for choice in [*choices, *(["take", "ack"] * len(sizes))]:
        if choice == "take" and (batch := window.take()) is not None:
            on_their_way.append(batch)
            total = sum(other.num_bytes for other in on_their_way)
            assert len(on_their_way) <= max_batches
            assert total <= max_bytes or len(on_their_way) == 1
        elif choice == "ack" and on_their_way:
            acked.append(window.ack(on_their_way.pop(0).number).number)
        elif choice == "rewind":
            window.rewind()
            on_their_way.clear()
    assert acked == list(range(1, len(sizes) + 1))
    assert window.is_empty


def test_the_digest_chains_the_hashes_image_by_image() -> None:
    first, second = encoded(1), encoded(2)
    by_hand = hashlib.sha256(b"" + hashlib.sha256(first.data).digest()).digest()
    by_hand = hashlib.sha256(by_hand + hashlib.sha256(second.data).digest()).digest()
    assert chain(b"", [first, second]) == by_hand


def test_the_digest_of_a_batch_whose_ack_was_lost_is_known() -> None:
    window = Window()
    window.limit(8, 10_000)
    window.add([encoded(1)])
    window.add([encoded(2)])
    window.take()
    assert window.digest_at(0) == b""
    assert window.digest_at(1) == chain(b"", [encoded(1)])
    assert window.digest_at(2) == chain(b"", [encoded(1), encoded(2)])
    with pytest.raises(manyview.Aborted, match="another client"):
        window.digest_at(3)
    window.ack(1)
    with pytest.raises(manyview.DataLoss, match="lost acknowledged"):
        window.digest_at(0)


def test_the_batch_whose_ack_comes_next_is_the_oldest_one() -> None:
    window = Window()
    window.limit(8, 10_000)
    assert window.owed_bytes == 0
    window.add([encoded(1, 3_000)])
    window.add([encoded(2, 10)])
    assert 3_000 < window.owed_bytes < 3_200
    window.take()
    assert window.owed_bytes > 3_000
    window.ack(1)
    assert 0 < window.owed_bytes < 200


def test_an_ack_out_of_order_is_an_error() -> None:
    window = Window()
    window.limit(8, 10_000)
    window.add([encoded(1)])
    window.take()
    with pytest.raises(manyview.Internal, match="acknowledged batch 2 where 1 was expected"):
        window.ack(2)
