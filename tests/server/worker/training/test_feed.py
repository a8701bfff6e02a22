from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manyview_server.worker.evaluation.knn import is_held_out
from manyview_server.worker.job_images.decoded_images import DecodedImages
from manyview_server.worker.training import feed as feed_module
from manyview_server.worker.training.feed import BatchStream, Feed, epoch_order, places_taken
from manyview_server.worker.training_failed import TrainingFailed
from support.learning import job_images
from support.learning.pretend_device import DEVICE, pretending

SIZE = 4
EVERYTHING, NOTHING = 1 << 30, 0


def make_images(
    num_images: int,
    cache_bytes: int = EVERYTHING,
    unreadable: Sequence[int] = (),
    device: torch.device = job_images.CPU,
) -> DecodedImages:
    """Image number n has all its pixels n, its height n + 1, and its label n % 7 - 1."""
    numbers = torch.arange(num_images)
    return job_images.from_array(
        numbers.to(torch.uint8)[:, None, None, None].expand(-1, 3, SIZE, SIZE).contiguous(),
        sizes=torch.stack([numbers + 1, numbers + 2], dim=1),
        labels=numbers % 7 - 1,
        unreadable=unreadable,
        cache_bytes=cache_bytes,
        device=device,
    )


def numbers(feed: Feed, first: int, last: int) -> list[list[int]]:
    with closing(feed.batches(first, last)) as batches:
        return [batch.images[:, 0, 0, 0].tolist() for batch in batches]


def feed_of(images: DecodedImages, rows: range = range(50), seed: int = 1, **since: int) -> Feed:
    return Feed(images, images.index, torch.tensor(list(rows)), batch_size=8, seed=seed, **since)


def feed(cache_bytes: int = EVERYTHING, rows: range = range(50), seed: int = 1) -> Feed:
    return feed_of(make_images(50, cache_bytes), rows, seed)


def test_an_epoch_takes_each_image_at_most_once_and_leaves_out_the_incomplete_batch() -> None:
    assert feed().steps_per_epoch == 6
    seen = [n for batch in numbers(feed(), 0, 6) for n in batch]
    assert len(set(seen)) == len(seen) == 48


def test_what_belongs_to_an_image_comes_with_it() -> None:
    images = make_images(50)
    for batch in feed_of(images, range(20)).batches(0, 4):
        rows = batch.images[:, 0, 0, 0].long()
        assert torch.equal(batch.sizes, torch.stack([rows + 1, rows + 2], dim=1))
        assert torch.equal(batch.image_ids, images.index.image_ids[rows])
        assert torch.equal(batch.labels, rows % 7 - 1)


def test_epochs_and_seeds_differ_in_their_order() -> None:
    first, second = numbers(feed(), 0, 6), numbers(feed(), 6, 12)
    assert first != second
    assert first != numbers(feed(seed=2), 0, 6)


@pytest.mark.parametrize("cache_bytes", [EVERYTHING, 20 * 3 * SIZE**2, NOTHING])
def test_a_feed_that_starts_in_the_middle_goes_on_as_if_it_had_started_at_the_beginning(cache_bytes: int) -> None:
    assert numbers(feed(cache_bytes), 9, 20) == numbers(feed(), 0, 20)[9:]


def test_images_that_came_in_later_have_epochs_of_their_own_behind_those_before() -> None:
    later = feed_of(make_images(50), first_step=7, first_epoch=3)
    assert [later.epoch_of(step) for step in (7, 12, 13, 19)] == [3, 3, 4, 5]
    assert [step for step in range(7, 26) if later.starts_epoch(step)] == [7, 13, 19, 25]
    assert [later.end_of_epoch(step) for step in (7, 12, 13)] == [13, 13, 19]
    assert numbers(later, 7, 13) == numbers(feed(), 18, 24), "the order is that of the epoch, whatever came before"
    assert numbers(later, 10, 20) == numbers(later, 7, 20)[3:]


@pytest.mark.parametrize("cache_bytes", [EVERYTHING, NOTHING])
def test_a_stream_gives_every_step_its_batch_and_changes_its_feed_between_epochs(cache_bytes: int) -> None:
    images = make_images(50, cache_bytes)
    first, later = feed_of(images), feed_of(images, range(40), first_step=6, first_epoch=1)
    with closing(BatchStream(14, one_epoch_at_a_time=True)) as stream:
        taken = [stream.take(first if step < 6 else later, step) for step in range(2, 14)]
    assert [batch.images[:, 0, 0, 0].tolist() for batch in taken] == numbers(first, 2, 6) + numbers(later, 6, 14)
    with closing(BatchStream(14, one_epoch_at_a_time=False)) as stream:
        taken = [stream.take(first, step) for step in range(14)]
    assert [batch.images[:, 0, 0, 0].tolist() for batch in taken] == numbers(first, 0, 14)


@pytest.mark.parametrize("cache_bytes", [EVERYTHING, NOTHING])
def test_on_another_device_a_thread_gathers_the_next_batches_and_ends_with_the_stream(cache_bytes: int) -> None:
    expected = numbers(feed(), 0, 9)
    with pretending() as device, closing(make_images(50, cache_bytes, device=DEVICE)) as images:
        with closing(BatchStream(100, one_epoch_at_a_time=False)) as stream:
            taken = [stream.take(feed_of(images), step) for step in range(9)]
            assert [thread.name for thread in threading.enumerate()].count("feed") == 1
        assert not device.waits
        assert [batch.images[:, 0, 0, 0].tolist() for batch in taken] == expected
    assert "feed" not in [thread.name for thread in threading.enumerate()]


def test_only_the_rows_given_are_taken() -> None:
    assert {n for batch in numbers(feed(rows=range(10, 30)), 0, 4) for n in batch} <= set(range(10, 30))


@given(st.lists(st.booleans(), min_size=1, max_size=12).filter(any))
def test_the_nearest_readable_image_before_it_takes_the_place_of_an_unreadable_one(readable: list[bool]) -> None:
    for place, taken in enumerate(places_taken(torch.tensor(readable)).tolist()):
        while not readable[place]:
            place = (place - 1) % len(readable)
        assert taken == place


@pytest.mark.parametrize("cache_bytes", [EVERYTHING, 20 * 3 * SIZE**2, NOTHING])
def test_unreadable_images_change_neither_the_order_nor_the_places_of_the_others(cache_bytes: int) -> None:
    unreadable = {3, 17, 18, 40}
    images = make_images(50, cache_bytes, sorted(unreadable))
    with closing(images), closing(feed_of(images).batches(0, 12)) as batches:
        for batch, expected in zip(batches, numbers(feed(), 0, 12), strict=True):
            rows = batch.images[:, 0, 0, 0].tolist()
            assert all(found == wanted or wanted in unreadable for found, wanted in zip(rows, expected, strict=True))
            assert not unreadable & set(rows)
            assert torch.equal(batch.image_ids, images.index.image_ids[rows])
            assert torch.equal(batch.labels, images.index.labels[rows])
            assert batch.sizes[:, 0].tolist() == [row + 1 for row in rows]


@pytest.mark.parametrize("cache_bytes", [EVERYTHING, NOTHING])
def test_a_batch_of_which_nothing_can_be_read_repeats_the_one_before_it(cache_bytes: int) -> None:
    first, second, *_, last = numbers(feed(), 0, 6)
    for unreadable, expected in (([*second, first[0]], 0), ([*second, *first], 5)):
        images = make_images(50, cache_bytes, unreadable)
        with closing(images), closing(feed_of(images).batches(0, 2)) as batches:
            found = [batch.images[:, 0, 0, 0].tolist() for batch in batches]
        assert found[1] == found[0] if expected == 0 else found == [last, last]
        assert not set(unreadable) & set(found[1])


def test_an_epoch_is_sorted_once_however_many_of_its_batches_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    sorted_epochs = []

    def counted(seed: int, epoch: int, image_ids: np.ndarray) -> np.ndarray:
        sorted_epochs.append(epoch)
        return epoch_order(seed, epoch, image_ids)

    monkeypatch.setattr(feed_module, "epoch_order", counted)
    images = make_images(50, NOTHING, unreadable=range(1, 50))
    pairs = Feed(images, images.index, torch.arange(50), batch_size=2, seed=1)
    gathered, gather = [], images.gather
    monkeypatch.setattr(images, "gather", lambda rows: gathered.append(rows) or gather(rows))  # type: ignore[func-returns-value]
    with closing(images), closing(pairs.batches(0, 75)) as batches:
        assert {int(n) for batch in batches for n in batch.images[:, 0, 0, 0]} == {0}
    assert sorted_epochs == [0, 1, 2]
    assert len(gathered) <= 72 + 24, "each search takes one batch, once it is known what cannot be read"


def test_an_epoch_of_which_nothing_can_be_read_ends_the_job_with_the_numbers() -> None:
    images = make_images(50, unreadable=range(50))
    with (
        closing(images),
        closing(feed_of(images).batches(0, 2)) as batches,
        pytest.raises(TrainingFailed, match="none of the 48 images of an epoch can be read: DECODE_FAILED") as failed,
    ):
        next(batches)
    assert failed.value.reason == "DATASET_UNREADABLE"
    assert "0 images of the data set could be read, and 48 could not" in str(failed.value)


def test_an_error_in_a_thread_reaches_the_loop() -> None:
    def fail(*_: object) -> None:
        raise OSError("broken")

    for device in (job_images.CPU, DEVICE):
        with pretending(), closing(make_images(50, device=device)) as images:
            images._decoder.decode = fail  # type: ignore[method-assign, assignment]
            with pytest.raises(OSError, match="broken"):
                numbers(feed_of(images), 0, 6)


def test_the_order_depends_on_the_images_not_on_their_places() -> None:
    ids = np.random.default_rng(0).integers(0, 2**63, 100)
    shuffled = np.random.default_rng(1).permutation(ids)
    assert np.array_equal(ids[epoch_order(3, 2, ids)], shuffled[epoch_order(3, 2, shuffled)])


def test_the_order_is_uniform_enough_that_each_image_comes_first_now_and_then() -> None:
    ids = np.random.default_rng(0).integers(0, 2**63, 8)
    first = np.bincount([epoch_order(0, epoch, ids)[0] for epoch in range(800)], minlength=8)
    assert first.min() > 60
    assert first.max() < 140


def test_about_the_fraction_asked_for_is_held_out_and_the_same_ones_in_a_larger_data_set() -> None:
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 2**63, 10_000))
    held_out = is_held_out(ids, 0.2)
    assert 1800 < int(held_out.sum()) < 2200
    assert torch.equal(is_held_out(ids[:100], 0.2), held_out[:100])
