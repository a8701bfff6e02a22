"""Before a job is created, its time is measured on this device; what it leaves open is chosen by that."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import manyview
from support.service.harness import SMALL_JOB, ServerProcess, write_photos

LONG = SMALL_JOB | {"image_size": 32, "epochs": 3_000, "evaluation": {"knn_every_epochs": 0}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> Iterator[ServerProcess]:
    """A server that measures, unlike those of other tests."""
    measuring = ServerProcess(
        tmp_path_factory.mktemp("measuring") / "data", catalogue=catalogue, one_core=True, measure_steps=True
    )
    measuring.start()
    yield measuring
    measuring.stop()


@pytest.fixture(scope="module")
def dataset(client: manyview.Client, tmp_path_factory: pytest.TempPathFactory) -> manyview.Dataset:
    folder = tmp_path_factory.mktemp("estimated")
    write_photos(folder, 32, seed=12)
    return client.upload(folder, dataset="estimated")


def measured(client: manyview.Client, dataset: manyview.Dataset, **job: Any) -> manyview.TrainJobInfo:
    """Plan a job until its step was measured. A busy machine needs more than one request's time to start a worker."""
    give_up_s = time.monotonic() + 100
    while True:
        planned = client.plan(dataset, "simclr", **job)
        assert planned.estimate is not None
        why = planned.choice + planned.estimate.text
        if "a step could not be measured within" not in why:
            return planned
        assert time.monotonic() < give_up_s, why


@pytest.mark.timeout(240)
def test_the_plan_the_job_and_the_first_line_of_its_log_have_the_same_estimate(
    client: manyview.Client, server: ServerProcess, dataset: manyview.Dataset
) -> None:
    planned = measured(client, dataset, config=LONG).estimate
    assert planned is not None
    assert planned.total_s > planned.step_s > 0
    assert planned.text.endswith("on this CPU") or "on this CPU; " in planned.text
    job = client.train(dataset, "simclr", config=LONG)
    job.cancel()
    with pytest.raises(manyview.TrainJobCancelled):
        job.wait(timeout_s=30)  # nothing is measured while a job trains
    assert job.info.estimate is None  # of a later look
    first = next(iter(job.logs()))
    assert first.text == f"estimated time: {planned.text}"
    assert (server.data_dir / "step-times.json").exists()


@pytest.mark.timeout(240)
def test_the_command_line_prints_choice_and_estimate_beside_the_configuration(
    client: manyview.Client, server: ServerProcess, dataset: manyview.Dataset
) -> None:
    measured(client, dataset, config={"image_size": 32, "batch_size": 16}, time_budget="30s")
    words = ["train", dataset.id, "--set", "image_size=32", "--set", "batch_size=16", "--time", "30s", "--print-config"]
    environment = {**os.environ, "MANYVIEW_TARGET": server.address}
    program = Path(sys.executable).with_name("manyview")
    ran = subprocess.run([program, *words], env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert '"image_size": 32' in ran.stdout
    choice, estimate = ran.stderr.splitlines()
    assert choice.startswith("chosen: backbone=")
    assert "for 32 images" in choice
    assert estimate.startswith("time: ")
