from __future__ import annotations

import numpy as np
import pytest

from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.supervise.timers.job_seconds import Workload
from manyview_server.worker.images.decode_size import choose_size


@pytest.mark.parametrize(
    ("sides", "decode_size", "expected"),
    [
        ([(32, 32), (32, 32)], None, 32),
        ([(64, 64), (64, 64)], None, 64),
        ([(65, 65), (65, 65)], None, 64),
        ([(32, 32), (33, 33)], None, 64),
        ([(32, 31), (32, 31)], None, 64),
        ([(32, 32)], 48, 48),
    ],
)
def test_the_size_is_the_images_own_where_all_are_small_squares(
    sides: list[tuple[int, int]], decode_size: int | None, expected: int
) -> None:
    snapshot = np.zeros(len(sides), SNAPSHOT_DTYPE)
    snapshot["width"], snapshot["height"] = np.array(sides).T
    assert choose_size(snapshot, 32, decode_size) == expected


@pytest.mark.parametrize("side", [20, 63, 64, 65])
@pytest.mark.parametrize("decode_size", [None, 48])
def test_the_front_estimates_with_the_size_that_the_trainer_chooses(side: int, decode_size: int | None) -> None:
    snapshot = np.zeros(3, SNAPSHOT_DTYPE)
    snapshot["width"] = snapshot["height"] = side
    workload = Workload(num_images=3, num_labelled=0, pixels=side**2, short_side=side, common_side=side)
    estimated = workload.decode_size({"image_size": 32, "decode_size": decode_size})
    assert estimated == choose_size(snapshot, 32, decode_size)
