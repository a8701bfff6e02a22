from __future__ import annotations

import dataclasses
import threading
from contextlib import closing

import numpy as np
import pytest
import torch

from manyview_server.worker.evaluation.knn import is_held_out
from manyview_server.worker.images.cache import ImageCache
from manyview_server.worker.training.feed import BatchStream, Feed, epoch_order

CPU = torch.device("cpu")


def make_cache(num_images: int, location: str = "device") -> ImageCache:
    """Image number n has all its pixels n, its height n + 1."""
    ids = np.random.default_rng(0).integers(0, 2**63, num_images)
    numbers = torch.arange(num_images)
    return ImageCache(
        storage=numbers.to(torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4).contiguous(),
        sizes=torch.stack([numbers + 1, numbers + 2], dim=1),
        image_ids=torch.from_numpy(ids),
        labels=torch.full((num_images,), -1),
        readable=torch.ones(num_images, dtype=torch.bool),
        location=location,
        unreadable=(),
    )


def numbers(feed: Feed, first: int, last: int) -> list[list[int]]:
    with closing(feed.batches(first, last)) as batches:
        return [batch.images[:, 0, 0, 0].tolist() for batch in batches]


def feed(location: str = "device", rows: range = range(50), seed: int = 1) -> Feed:
    return Feed(make_cache(50, location), torch.tensor(list(rows)), batch_size=8, seed=seed, device=CPU)


def test_an_epoch_takes_each_image_at_most_once_and_leaves_out_the_incomplete_batch() -> None:
    assert feed().steps_per_epoch == 6
    seen = [n for batch in numbers(feed(), 0, 6) for n in batch]
    assert len(set(seen)) == len(seen) == 48


def test_labels_and_ids_are_those_of_the_images() -> None:
    cache = make_cache(50)
    cache = dataclasses.replace(cache, labels=torch.arange(50) % 7 - 1)
    with closing(Feed(cache, torch.arange(50), batch_size=8, seed=1, device=CPU).batches(0, 3)) as batches:
        for batch in batches:
            rows = batch.images[:, 0, 0, 0].long()
            assert torch.equal(batch.labels, cache.labels[rows])
            assert torch.equal(batch.image_ids, cache.image_ids[rows])


def test_epochs_and_seeds_differ_in_their_order() -> None:
    first, second = numbers(feed(), 0, 6), numbers(feed(), 6, 12)
    assert first != second
    assert first != numbers(feed(seed=2), 0, 6)


@pytest.mark.parametrize("location", ["device", "file"])
def test_a_feed_that_starts_in_the_middle_goes_on_as_if_it_had_started_at_the_beginning(location: str) -> None:
    assert numbers(feed(location), 9, 20) == numbers(feed(), 0, 20)[9:]


def test_images_that_came_in_later_have_epochs_of_their_own_behind_those_before() -> None:
    later = Feed(make_cache(50), torch.arange(50), batch_size=8, seed=1, device=CPU, first_step=7, first_epoch=3)
    assert [later.epoch_of(step) for step in (7, 12, 13, 19)] == [3, 3, 4, 5]
    assert [step for step in range(7, 26) if later.starts_epoch(step)] == [7, 13, 19, 25]
    assert [later.end_of_epoch(step) for step in (7, 12, 13)] == [13, 13, 19]
    assert numbers(later, 7, 13) == numbers(feed(), 18, 24), "the order is that of the epoch, whatever came before"
    assert numbers(later, 10, 20) == numbers(later, 7, 20)[3:]


@pytest.mark.parametrize("location", ["device", "file"])
def test_a_stream_gives_every_step_its_batch_and_changes_its_feed_between_epochs(location: str) -> None:
    first = feed(location)
    later = Feed(
        make_cache(50, location), torch.arange(40), batch_size=8, seed=1, device=CPU, first_step=6, first_epoch=1
    )
    with closing(BatchStream(14, one_epoch_at_a_time=True)) as stream:
        taken = [stream.take(first if step < 6 else later, step) for step in range(2, 14)]
    assert [batch.images[:, 0, 0, 0].tolist() for batch in taken] == numbers(first, 2, 6) + numbers(later, 6, 14)
    with closing(BatchStream(14, one_epoch_at_a_time=False)) as stream:
        taken = [stream.take(first, step) for step in range(14)]
    assert [batch.images[:, 0, 0, 0].tolist() for batch in taken] == numbers(first, 0, 14)


def test_a_stream_that_is_closed_early_ends_its_thread() -> None:
    with closing(BatchStream(100, one_epoch_at_a_time=False)) as stream:
        stream.take(feed("file"), 0)
        assert [thread.name for thread in threading.enumerate()].count("feed") == 1
    assert "feed" not in [thread.name for thread in threading.enumerate()]


def test_what_belongs_to_an_image_comes_with_it() -> None:
    cache = make_cache(50)
    for batch in Feed(cache, torch.arange(20), batch_size=8, seed=1, device=CPU).batches(0, 4):
        rows = batch.images[:, 0, 0, 0].long()
        assert torch.equal(batch.sizes[:, 0], rows + 1)
        assert torch.equal(batch.image_ids, cache.image_ids[rows])


def test_only_the_rows_given_are_taken() -> None:
    assert {n for batch in numbers(feed(rows=range(10, 30)), 0, 4) for n in batch} <= set(range(10, 30))


def test_an_error_in_the_thread_that_gathers_reaches_the_loop() -> None:
    broken = dataclasses.replace(make_cache(50, "file"), sizes=torch.zeros(1, 2))
    with pytest.raises(IndexError):
        numbers(Feed(broken, torch.arange(50), batch_size=8, seed=1, device=CPU), 0, 6)


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
