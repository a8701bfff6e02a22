"""A job that is created comes with the time that it takes on this device, or with the reason why nobody knows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2

from manyview.v1 import train_job_service_pb2 as pb
from manyview_server.errors import Unavailable
from manyview_server.front.backends import StepTimer
from manyview_server.front.jobs.estimates import Estimator
from manyview_server.front.jobs.job_plans import JobPlanner
from manyview_server.messages.timing import StepTimed
from manyview_server.store.store import Store
from manyview_server.supervise.catalogue.catalogue import Catalogue
from manyview_server.supervise.timers.estimate import Estimate
from manyview_server.supervise.timers.job_seconds import START_S, Workload

CONFIG = {"image_size": 128, "batch_size": 32, "evaluation": {"knn_every_epochs": 0}, "precision": "float32"}
"""An epoch of the 320 images has 10 steps, of a second each."""
IMAGE_BYTES = 3 * 256**2
Estimated = Callable[..., Awaitable[Estimate | None]]


def request(dataset: str, config: dict[str, Any]) -> pb.CreateTrainJobRequest:
    values = json_format.ParseDict(CONFIG | config, struct_pb2.Struct())
    return pb.CreateTrainJobRequest(dataset=f"datasets/{dataset}", method="simclr", config=values)


@pytest.fixture
def estimated(planner: JobPlanner, shirts: Store, torch_catalogue: Catalogue) -> Estimated:
    """The estimate of a job: estimated(timer, wait_s=…, setting=…)."""

    async def estimate(
        timer: StepTimer | None,
        *,
        wait_s: float = 1.0,
        dataset: str = "shirts",
        image_cache_bytes: int | None = None,
        **config: Any,
    ) -> Estimate | None:
        plan = await planner.plan(request(dataset, config))
        return await Estimator(shirts, torch_catalogue, timer, image_cache_bytes).estimate(plan, wait_s)

    return estimate


async def test_a_job_takes_its_steps_times_the_measured_step(estimated: Estimated, timer: Any) -> None:
    found = await estimated(timer, epochs=60)
    assert found == Estimate(total_s=601, step_s=1, text="about 10 min on this CPU")
    (asked,) = timer.asked
    assert (asked["image_size"], asked["num_images"], asked["decode_size"]) == (128, 320, 256)


async def test_a_job_of_hours_comes_with_a_smaller_size_that_was_measured_too(estimated: Estimated, timer: Any) -> None:
    found = await estimated(timer, epochs=1000)
    assert found is not None
    assert found.text == "about 2.8 h on this CPU; --set image_size=64 takes about 40 min"


async def test_a_job_of_hours_at_a_small_size_comes_with_fewer_epochs(estimated: Estimated, timer: Any) -> None:
    found = await estimated(timer, epochs=4000, image_size=64)
    assert found is not None
    assert found.text == "about 2.8 h on this CPU; --epochs 1439 takes about an hour"


@pytest.mark.parametrize(
    ("image_cache_bytes", "epochs", "expected"),
    [
        (None, 60, "about 10 min on this CPU"),
        (320 * IMAGE_BYTES, 60, "about 10 min on this CPU"),
        (
            300 * IMAGE_BYTES + 1,
            60,
            "about 10 min on this CPU; 20 of 320 images do not fit into memory and are decoded each time",
        ),
        (0, 60, "about 10 min on this CPU; 320 of 320 images do not fit into memory and are decoded each time"),
        (0, 1, "less than a minute on this CPU"),
    ],
)
async def test_an_estimate_says_how_many_images_are_decoded_each_time(
    estimated: Estimated, timer: Any, image_cache_bytes: int | None, epochs: int, expected: str
) -> None:
    found = await estimated(timer, epochs=epochs, image_cache_bytes=image_cache_bytes)
    assert found is not None
    assert found.text == expected


async def test_a_short_job_is_not_measured(estimated: Estimated, timer: Any) -> None:
    found = await estimated(timer, epochs=1, image_size=16)
    assert found == Estimate(text="less than a minute on this CPU")
    assert timer.asked == []


async def test_a_busy_device_is_named_as_the_reason(estimated: Estimated, timer: Any) -> None:
    timer.failure = Unavailable("DEVICE_BUSY", "the device trains another job now")
    found = await estimated(timer)
    assert found == Estimate(text="how long the job takes is not known: the device trains another job now")


async def test_a_slow_measurement_does_not_delay_the_answer(estimated: Estimated, timer: Any) -> None:
    timer.delay_s = 60
    found = await estimated(timer, wait_s=0.05)
    assert found == Estimate(text="how long the job takes is not known: too slow")


async def test_a_job_that_is_too_small_for_a_batch_has_no_estimate(estimated: Estimated, timer: Any) -> None:
    held_out = {"knn_holdout_fraction": 0.9}
    assert await estimated(timer, batch_size=300, epochs=1000, evaluation=held_out) is not None  # no image has a label
    assert await estimated(timer, dataset="labelled", batch_size=300, epochs=1000, evaluation=held_out) is None


async def test_without_a_timer_nothing_is_estimated(estimated: Estimated) -> None:
    assert await estimated(None) is None


def test_images_for_which_the_device_has_no_room_are_decoded_in_each_epoch(
    shirts: Store, torch_catalogue: Catalogue, timer: Any
) -> None:
    # A third of the device's memory of 1 GiB holds 1,820 images of 256 x 256 pixels, a tenth of them.
    workload = Workload(num_images=18_200, num_labelled=0, pixels=1e6, short_side=1_000, common_side=0)
    timed = StepTimed(batch_size=4, step_s=0.0, embed_s=0.0, decode_s=0.02)
    evaluation = {"knn_every_epochs": 0, "knn_max_bank": 10, "knn_holdout_fraction": 0.1}
    settings = CONFIG | {"decode_size": None, "epochs": 10, "max_steps": None, "evaluation": evaluation}
    for limit, share in ((None, 0.9), (910 * IMAGE_BYTES, 0.95), (0, 1.0), (1 << 40, 0.9)):
        found = Estimator(shirts, torch_catalogue, timer, limit).seconds(workload, settings, timed)
        assert found == pytest.approx(START_S + 18_200 * 0.01 * (1 + 9 * share))
