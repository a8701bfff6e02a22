"""Grouping images into the batches of an upload."""

from collections.abc import Iterator

from manyview._types.server import Limits
from manyview._uploads.batcher import BATCH_BYTES, LINGER_S, Batcher
from manyview._uploads.encoded_image import EncodedImage


def limits(max_batch_images: int = 8) -> Limits:
    return Limits(
        max_message_bytes=1 << 24,
        max_image_bytes=1 << 23,
        max_image_pixels=1 << 20,
        max_image_side=1 << 12,
        max_batch_images=max_batch_images,
    )


def images(*sizes: int) -> Iterator[EncodedImage]:
    return (EncodedImage(f"{n}", b"x" * size) for n, size in enumerate(sizes))


def taken(batcher: Batcher) -> list[list[str]]:
    return [[image.key for image in batch] for batch in iter(batcher.take, None)]


def test_a_batch_is_full_at_its_number_of_images() -> None:
    batcher = Batcher(limits(2), clock=lambda: 0.0)
    for image in images(1, 1, 1):
        batcher.add(image)
    assert taken(batcher) == [["0", "1"]]
    assert not batcher.is_empty


def test_a_batch_is_full_before_the_image_that_would_make_it_too_large() -> None:
    batcher = Batcher(limits(), clock=lambda: 0.0)
    for image in images(1_000_000, 600_000, 2_000_000, 1):
        batcher.add(image)
    assert taken(batcher) == [["0"], ["1"], ["2"]], "a large image goes alone"
    batcher.close()
    assert taken(batcher) == [["3"]]
    assert batcher.is_empty


def test_an_image_waits_for_others_no_longer_than_half_a_second() -> None:
    now = 100.0
    batcher = Batcher(limits(), clock=lambda: now)
    assert batcher.due_s() is None
    first, second = images(1, 1)
    batcher.add(first)
    now += 0.4
    batcher.add(second)
    assert batcher.due_s() is not None
    assert abs(batcher.due_s() - (LINGER_S - 0.4)) < 1e-9  # type: ignore[operator]
    assert batcher.take() is None
    now += 0.11
    assert batcher.due_s() == 0
    assert taken(batcher) == [["0", "1"]]
    assert batcher.due_s() is None


def test_a_server_without_a_limit_on_a_batch_gets_full_ones() -> None:
    batcher = Batcher(limits(0), clock=lambda: 0.0)
    for image in images(*[1] * 256):
        batcher.add(image)
    assert [len(batch) for batch in iter(batcher.take, None)] == [256]


def test_images_can_be_taken_back_one_by_one_in_their_order() -> None:
    batcher = Batcher(limits(2), clock=lambda: 0.0)
    for image in images(1, 1, 1):
        batcher.add(image)
    assert [image.key for image in iter(batcher.take_back, None)] == ["0", "1", "2"]
    assert batcher.is_empty


def test_images_that_are_not_taken_back_stay_in_their_batches() -> None:
    batcher = Batcher(limits(2), clock=lambda: 0.0)
    for image in images(1, 1, 1):
        batcher.add(image)
    assert batcher.take_back() is not None
    batcher.close()
    assert taken(batcher) == [["1"], ["2"]]


def test_the_room_is_what_can_be_added_before_a_batch_is_taken() -> None:
    batcher = Batcher(limits(3), clock=lambda: 0.0)
    assert batcher.room == (3, BATCH_BYTES)
    for image in images(100, 200):
        batcher.add(image)
    assert batcher.room == (1, BATCH_BYTES - 300)
    for image in images(BATCH_BYTES):
        batcher.add(image)
    assert batcher.room == (0, 0)
    assert taken(batcher) == [["0", "1"]]
    assert batcher.room == (2, 0)
