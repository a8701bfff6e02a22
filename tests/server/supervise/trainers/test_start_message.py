"""The message that starts a trainer has what the server knows of the job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manyview_server.messages.timing import StepTimed, TimeStep
from manyview_server.supervise.timers.step_times import StepTimes
from manyview_server.supervise.trainers.crashing_images import CrashingImages
from manyview_server.supervise.trainers.start_message import start_message
from support.service.supervised import create

SETTINGS = {"backbone": "resnet9", "precision": "auto"}
NUMERICS = {"precision": "bfloat16", "channels_last": True, "float32_products": "ieee"}


@pytest.mark.parametrize(("measured_on", "expected"), [("cpu", NUMERICS), ("cuda:0", {})])
async def test_a_trainer_is_told_the_number_format_that_was_measured_as_the_fastest(
    store: Any, tmp_path: Path, measured_on: str, expected: dict[str, Any]
) -> None:
    await create(store, settings=SETTINGS)
    times = StepTimes(tmp_path / "times.json", {})
    request = TimeStep(
        settings={**SETTINGS, "epochs": 3},
        num_images=9,
        decode_size=64,
        device=measured_on,
        num_threads=2,
        limit_s=1,
    )
    times.keep(request, StepTimed(batch_size=8, step_s=0.1, embed_s=0.1, decode_s=0.1, numerics=NUMERICS))
    message = await start_message(
        store,
        await store.jobs.get("job"),
        None,
        CrashingImages(store),
        device="cpu",
        num_threads=2,
        cache_bytes=1,
        step_times=times,
    )
    assert message.numerics == expected
