"""A job that is killed at every one of its steps ends with the very bits of the job that was left alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import manyview
from support.learning.exactness import exact, last_checkpoint
from support.service.harness import SMALL_JOB, ServerProcess, wait_until, write_photos

NewServer = Callable[..., ServerProcess]
SOAK = bool(os.environ.get("MANYVIEW_SOAK"))
RUNS = [
    pytest.param(method, action, 24 if SOAK else steps, id=f"{method}-{action}")
    for method, action, steps in (
        ("moco", "kill", 5),
        ("simclr", "kill_parent", 4),
        *((("simclr", "kill", 24), ("moco", "kill_parent", 24)) if SOAK else ()),
    )
]


@pytest.mark.timeout(900 if SOAK else 240)
@pytest.mark.parametrize(("method", "action", "num_steps"), RUNS)
def test_a_job_that_dies_at_every_step_ends_as_if_nothing_had_been(
    new_server: NewServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    action: str,
    num_steps: int,
) -> None:
    failpoints = tmp_path / "failpoints"
    failpoints.mkdir()
    monkeypatch.setenv("MANYVIEW_FAILPOINTS", str(failpoints))
    write_photos(tmp_path / "photos", 96, seed=5)
    server = new_server()
    server.start()
    config = SMALL_JOB | {"max_steps": num_steps, "checkpoint_every_steps": 1, "evaluation": {"knn_every_epochs": 1}}
    with server.client() as client:
        photos = client.upload(tmp_path / "photos", dataset="photos")
        alone = client.train(photos, method, config=config, job_id="alone")
        alone.wait(timeout_s=60)
        for step in range(1, num_steps + 1):
            (failpoints / f"trainer.step@{step}").write_text(action)
        job = client.train(photos, method, config=config, job_id="killed")

        def ended() -> bool:
            if server.died():
                wait_until(lambda: not server.processes(), "the trainer dies with the server", 10)
                server.start()
            with suppress(manyview.Unavailable):  # it may die in the middle of the question
                return job.refresh().is_terminal
            return False

        wait_until(ended, "the end of the job", 800 if SOAK else 200)
        assert job.state == "SUCCEEDED", job.info.failure
        assert not list(failpoints.iterdir()), "it was killed at each step"
        assert job.info.attempt == num_steps + 1
        assert exact(job) == exact(alone)
        assert sum("loss" in row for row in exact(job)) == num_steps, "each step counts once"
        one, other = last_checkpoint(server, job), last_checkpoint(server, alone)
        assert {"backbone.safetensors", "state.safetensors"} <= one.keys()
        assert one == other, "weights, teacher, heads, bank and momentum are the same bits"
        rollbacks = [event for event in job.metrics(kinds=["rollback"])]
        assert [event.attempt for event in rollbacks] == list(range(2, num_steps + 2))
        sequences = [event.sequence for event in job.metrics()]
        assert sequences == list(range(1, job.refresh().last_sequence + 1))
