"""Decoding beside training that makes no progress is noticed, and a machine that slept is not taken for that."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from manyview_server.messages.training import ImagesAdded
from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.worker.training.dataset_following import HANGING_S, SECOND_LOOK_S, DatasetFollowing


class Decoding:
    """A decoding of one chunk that lasts until the test ends."""

    def __init__(self) -> None:
        self.started, self.ended = threading.Event(), threading.Event()
        self.now_s = 1000.0
        self.sign_of_life: Callable[[], bool] = lambda: False

    def decode(self, rows: Any, stopped: Callable[[], bool], **_: Any) -> Any:
        self.sign_of_life = stopped
        stopped()
        self.started.set()
        self.ended.wait()
        return SimpleNamespace(device_bytes=0)


class NoImages(list[None]):
    device_bytes = 0


@pytest.fixture
def decoding() -> Iterator[Decoding]:
    made = Decoding()
    yield made
    made.ended.set()


@pytest.fixture
def following(decoding: Decoding) -> DatasetFollowing:
    """A decoding that has just started and has no result yet."""
    added: queue.SimpleQueue[ImagesAdded] = queue.SimpleQueue()
    added.put(ImagesAdded(blobs=(np.zeros(1, SNAPSHOT_DTYPE).tobytes(),)))
    made = DatasetFollowing(
        cast(Any, decoding),
        cast(Any, NoImages()),
        (),
        added,
        report=lambda _: None,
        stopped=decoding.ended.is_set,
        clock=lambda: decoding.now_s,
    )
    made.start()
    assert decoding.started.wait(10)
    return made


def test_a_chunk_that_takes_too_long_twice_in_a_row_is_a_failure(
    following: DatasetFollowing, decoding: Decoding
) -> None:
    decoding.now_s += HANGING_S
    assert following.next_snapshot(1, 1) is None
    decoding.now_s += 1
    assert following.next_snapshot(2, 2) is None, "it is looked at again"
    decoding.now_s += SECOND_LOOK_S + 1
    with pytest.raises(RuntimeError, match="no progress for 600 seconds"):
        following.next_snapshot(3, 3)


def test_a_machine_that_slept_while_a_chunk_was_decoded_fails_nothing(
    following: DatasetFollowing, decoding: Decoding
) -> None:
    for step in range(3):
        decoding.now_s += 10 * HANGING_S
        assert following.next_snapshot(step, step) is None
        decoding.now_s += 1
        decoding.sign_of_life()
        decoding.now_s += SECOND_LOOK_S + 1
        assert following.next_snapshot(step, step) is None
