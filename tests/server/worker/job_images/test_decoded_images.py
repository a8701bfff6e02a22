"""Any rows in any order with any room are what decoding each alone gives; memory, threads and errors are bounded."""

from __future__ import annotations

import threading
import time
import weakref
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from manyview_server.worker.images.decode_memory import DecodeMemory
from manyview_server.worker.images.decoder import DecodeError
from manyview_server.worker.images.guarded_decoder import GuardedDecoder
from manyview_server.worker.images.rgb import DEFAULT_RULE
from manyview_server.worker.job_images import decoded_images
from manyview_server.worker.job_images.decoded_images import DecodedImages, DecodingStopped, Gathered
from support.learning import job_images, worker_harness

SIZE = 16
IMAGE_BYTES = 3 * SIZE**2
SIDES = [(16, 16), (40, 25), (9, 60), (120, 90)]


class Alone:
    """JPEGs and PNGs of several shapes on disk, some of them unreadable, and each decoded alone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        files = [self._file(number) for number in range(23)]
        self.snapshot = worker_harness.write_dataset(
            directory, [(file, number % 3) for number, file in enumerate(files)]
        )
        self.images = torch.zeros(len(files), 3, SIZE, SIZE, dtype=torch.uint8)
        self.sizes = torch.full((len(files), 2), 16)
        self.readable = torch.zeros(len(files), dtype=torch.bool)
        guarded = GuardedDecoder("cache.decode", None, DecodeMemory())
        for number, file in enumerate(files):
            with suppress(DecodeError):
                image = guarded.decode(file, SIZE, DEFAULT_RULE, item=0)
                self.images[number], self.readable[number] = image.pixels, True
                self.sizes[number] = torch.tensor([image.height, image.width])

    @staticmethod
    def _file(number: int) -> bytes:
        if number % 7 == 3:
            return b"\xff\xd8\xff junk %d" % number
        height, width = SIDES[number % len(SIDES)]
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return worker_harness.encoded(pixels, "JPEG" if number % 2 else "PNG")

    def opened(self, room: int = 1000, **options: Any) -> DecodedImages:
        """Return the images, with room for so many of them."""
        return job_images.from_dataset(self.directory, self.snapshot, SIZE, cache_bytes=room * IMAGE_BYTES, **options)

    def check(self, found: Gathered, rows: Tensor) -> None:
        assert torch.equal(found.rows, rows)
        assert torch.equal(found.images, self.images[rows])
        assert torch.equal(found.sizes, self.sizes[rows])
        assert torch.equal(found.readable, self.readable[rows])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    return Alone(tmp_path_factory.mktemp("images") / "dataset")


BATCHES = st.lists(st.lists(st.integers(0, 22), max_size=9).map(torch.tensor), max_size=6)


@settings(max_examples=40, deadline=None)
@given(batches=BATCHES, room=st.integers(0, 25), num_threads=st.integers(1, 3), split=st.integers(0, 6))
def test_any_rows_in_any_order_with_any_room_are_what_decoding_each_alone_gives(
    alone: Alone, batches: list[Tensor], room: int, num_threads: int, split: int
) -> None:
    batches = [rows.long() for rows in batches]
    with closing(alone.opened(room, num_threads=num_threads)) as images:
        for part in (batches[:split], batches[split:], batches):
            for found, rows in zip(images.batches(part), part, strict=True):
                alone.check(found, rows)
        used = {row for rows in batches for row in rows.tolist() if alone.readable[row]}
        assert images.store.num_kept == min(room, len(used))


def test_images_that_are_kept_are_decoded_once_and_the_others_each_time(alone: Alone) -> None:
    images = job_images.from_array(alone.images, unreadable=[3], cache_bytes=10 * IMAGE_BYTES)
    decoder: Any = images._decoder
    with closing(images):
        for _ in range(3):
            images.gather(torch.arange(20))
    counts = np.bincount(decoder.decoded, minlength=20)
    assert sorted(counts.tolist()) == [1] * 11 + [3] * 9
    assert counts[3] == 1, "an image that is unreadable is not tried again"


def test_nothing_is_decoded_that_nobody_needs(alone: Alone) -> None:
    images = job_images.from_array(alone.images)
    decoder: Any = images._decoder
    with closing(images):
        images.gather(torch.tensor([4, 2]))
    assert sorted(decoder.decoded) == [2, 4]


def test_each_unreadable_image_is_reported_once(alone: Alone) -> None:
    told: list[int] = []
    with closing(alone.opened(0, on_unreadable=lambda image: told.append(image.image_id))) as images:
        for _ in range(2):
            images.gather(torch.arange(23))
    assert told == alone.snapshot["image_id"][~alone.readable.numpy()].tolist()


@pytest.mark.parametrize("room", [0, 5, 1000])
def test_images_that_are_added_are_gathered_with_the_others(alone: Alone, room: int) -> None:
    whole = alone.snapshot
    images = job_images.from_dataset(alone.directory, whole[:10], SIZE, cache_bytes=room * IMAGE_BYTES)
    with closing(images):
        images.gather(torch.arange(10))
        for num_images in (11, 23):
            images.grow(images.index.extended(whole[len(images.index) : num_images]))
            rows = torch.arange(num_images).flip(0)
            alone.check(images.gather(rows), rows)
        assert images.store.num_kept == min(room, int(alone.readable.sum()))


class Gate:
    """An image decoder that notes each row, and waits at some rows until the test lets it go on."""

    def __init__(self, images: DecodedImages, *held: int) -> None:
        self._decode = images._decoder.decode
        self._held = held
        self.begun: list[int] = []
        self.open = threading.Event()
        images._decoder.decode = self.decode  # type: ignore[method-assign]

    def decode(self, row: int, place: Any, into: Any) -> Any:
        self.begun.append(row)
        if row in self._held:
            assert self.open.wait(20)
        return self._decode(row, place, into)


def settled(seen: list[int]) -> list[int]:
    """Return the list once it has stopped to grow."""
    before = -1
    while before != len(seen):
        before = len(seen)
        time.sleep(0.1)
    return sorted(seen)


def test_the_next_batches_are_decoded_while_the_caller_works_and_no_more_than_a_few() -> None:
    images = job_images.from_array(torch.zeros(1000, 3, SIZE, SIZE, dtype=torch.uint8), cache_bytes=0)
    gate = Gate(images)
    with closing(images), closing(images.batches(torch.arange(1000).split(40))) as batches:
        next(batches)
        assert settled(gate.begun) == list(range(120)), "two batches are ahead of the one that is there"
        next(batches)
        assert settled(gate.begun) == list(range(160))


def test_small_batches_are_decoded_further_ahead_and_large_ones_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    images = job_images.from_array(torch.zeros(1000, 3, SIZE, SIZE, dtype=torch.uint8), cache_bytes=0)
    gate = Gate(images)
    with closing(images):
        with closing(images.batches(torch.arange(1000).split(2))) as batches:
            next(batches)
            assert len(settled(gate.begun)) == 2 + decoded_images.AHEAD_IMAGES
        gate.begun.clear()
        monkeypatch.setattr(decoded_images, "AHEAD_BYTES", 30 * IMAGE_BYTES)
        with closing(images.batches(torch.arange(1000).split(40))) as batches:
            next(batches)
            assert settled(gate.begun) == list(range(80))


def test_memory_is_bounded_whatever_the_number_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[weakref.ref[Tensor]] = []
    empty = torch.empty

    def noted(shape: Any, **options: Any) -> Tensor:
        tensor = empty(shape, **options)
        if shape[0] == 40:
            batches.append(weakref.ref(tensor))
        return tensor

    images = job_images.from_array(torch.zeros(2000, 3, SIZE, SIZE, dtype=torch.uint8), cache_bytes=100 * IMAGE_BYTES)
    monkeypatch.setattr(torch, "empty", noted)
    with closing(images):
        most = max(sum(ref() is not None for ref in batches) for _ in images.batches(torch.arange(2000).split(40)))
    assert len(batches) == 50
    assert most <= 4, "the one that the caller has, the next one, and two ahead"
    assert images.store.capacity == 100


def test_an_error_in_a_thread_reaches_the_caller_and_the_other_tasks_are_dropped() -> None:
    images = job_images.from_array(torch.zeros(500, 3, SIZE, SIZE, dtype=torch.uint8), cache_bytes=0, num_threads=1)

    def fail(row: int, place: Any, into: Any) -> Any:
        raise OSError(24, "too many open files")

    images._decoder.decode = fail  # type: ignore[method-assign]
    with closing(images), pytest.raises(OSError, match="too many open files"):
        images.gather(torch.arange(500))


def test_a_stop_ends_the_wait_and_closing_ends_the_threads() -> None:
    stop = threading.Event()
    images = job_images.from_array(torch.zeros(50, 3, SIZE, SIZE, dtype=torch.uint8), stopped=stop.is_set)
    gate = Gate(images, 7)
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(DecodingStopped):
        images.gather(torch.arange(50))
    gate.open.set()
    images.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode_")]


def test_a_wait_is_counted_by_the_images_of_the_batch() -> None:
    told: list[tuple[int, int]] = []
    images = job_images.from_array(
        torch.zeros(20, 3, SIZE, SIZE, dtype=torch.uint8), on_wait=lambda done, total: told.append((done, total))
    )
    with closing(images):
        images.gather(torch.arange(5))
        told.clear()
        images.gather(torch.arange(20))
        assert told[-1] == (15, 15)
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        told.clear()
        images.gather(torch.arange(20))
    assert told == []


def test_two_threads_gather_at_the_same_time(alone: Alone) -> None:
    """On a GPU a thread gathers the next batches, while features are evaluated."""
    failed: list[BaseException] = []
    with closing(alone.opened(12)) as images:

        def gather(seed: int) -> None:
            try:
                for number in range(20):
                    rows = torch.from_numpy(np.random.default_rng([seed, number]).integers(0, 23, 8))
                    alone.check(images.gather(rows), rows)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=gather, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed
