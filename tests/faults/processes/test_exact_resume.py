"""A job that is killed at every one of its steps ends with the very bits of the job that was left alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

import manyview
from support.learning.exactness import exact, last_checkpoint
from support.service.harness import SMALL_JOB, ServerProcess, wait_until, write_photos
from support.soak.rounds import soaking

RUNS = [
    pytest.param(method, action, 24 if soaking() else steps, id=f"{method}-{action}")
    for method, action, steps in (
        ("moco", "kill", 3),
        ("simclr", "kill_parent", 2),
        *((("simclr", "kill", 24), ("moco", "kill_parent", 24)) if soaking() else ()),
    )
]
CURIOUS = manyview.Deadlines(unary_s=2.0)
"""A client with patience would wait for a dead server, which starts again only when its death is noticed here."""


class Stage:
    """A server whose trainers fail at the steps that the files in a directory name, and a data set."""

    def __init__(self, server: ServerProcess, client: manyview.Client, failpoints: Path) -> None:
        self.server = server
        self.client = client
        self.failpoints = failpoints

    def wait_with_restarts(self, job_id: str) -> None:
        """Wait for the end of a job; start the server again whenever it has died."""
        with manyview.Client(self.server.address, deadlines=CURIOUS) as client:

            def ended() -> bool:
                if self.server.died():
                    wait_until(self.server.is_gone, "the trainer dies with the server", 10)
                    self.server.start()
                with suppress(manyview.Unavailable, manyview.DeadlineExceeded):  # it may die during the question
                    return client.job(job_id).info.is_terminal
                return False

            wait_until(ended, "the end of the job", 800 if soaking() else 200)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("exact-resume")
    (folder / "failpoints").mkdir()
    write_photos(folder / "photos", 96, seed=5)
    server = ServerProcess(folder / "data", catalogue=catalogue)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANYVIEW_FAILPOINTS", str(folder / "failpoints"))  # for each start, so until the end
        server.start()
        with server.client() as client:
            client.upload(folder / "photos", dataset="photos")
            yield Stage(server, client, folder / "failpoints")
        server.stop()
    wait_until(server.is_gone, "every process of the server is gone", 10)


@pytest.mark.timeout(900 if soaking() else 240)
@pytest.mark.parametrize(("method", "action", "num_steps"), RUNS)
def test_a_job_that_dies_at_every_step_ends_as_if_nothing_had_been(
    stage: Stage, method: str, action: str, num_steps: int
) -> None:
    config = SMALL_JOB | {"max_steps": num_steps, "checkpoint_every_steps": 1, "evaluation": {"knn_every_epochs": 1}}
    name = f"{method}-{action}".replace("_", "-")
    alone = stage.client.train("photos", method, config=config, job_id=f"alone-{name}")
    alone.wait(timeout_s=60)
    for step in range(1, num_steps + 1):
        (stage.failpoints / f"trainer.step@{step}").write_text(action)
    job = stage.client.train("photos", method, config=config, job_id=f"killed-{name}")
    stage.wait_with_restarts(job.id)
    assert job.refresh().state == "SUCCEEDED", job.info.failure
    assert not list(stage.failpoints.iterdir()), "it was killed at each step"
    assert job.info.attempt == num_steps + 1
    assert exact(job) == exact(alone)
    # The first step finds an empty bank, so it has no loss.
    assert sum("gradient_norm" in row for row in exact(job)) == num_steps, "each step counts once"
    one, other = last_checkpoint(stage.server, job), last_checkpoint(stage.server, alone)
    assert {"backbone.safetensors", "state.safetensors"} <= one.keys()
    assert one == other, "weights, teacher, heads, bank and momentum are the same bits"
    rollbacks = [event for event in job.metrics(kinds=["rollback"])]
    assert [event.attempt for event in rollbacks] == list(range(2, num_steps + 2))
    sequences = [event.sequence for event in job.metrics()]
    assert sequences == list(range(1, job.refresh().last_sequence + 1))


@pytest.mark.timeout(900 if soaking() else 240)
def test_a_job_that_dies_while_it_decodes_what_does_not_fit_into_memory_ends_as_one_that_keeps_all_images(
    stage: Stage,
) -> None:
    num_deaths, photos = (20 if soaking() else 3), "photos"
    config = SMALL_JOB | {"checkpoint_every_steps": 1, "evaluation": {"knn_every_epochs": 1}}
    config |= {"max_steps": 12 * num_deaths, "epochs": 1000}
    kept = stage.client.train(photos, "moco", config=config, job_id="kept")
    kept.wait(timeout_s=60)
    stage.server.stop()
    stage.server.arguments = ("--image-cache-bytes", "0")
    stage.server.start()
    pace, death = stage.failpoints / "trainer.step", stage.failpoints / "cache.decode"
    try:
        with stage.server.client() as client:
            pace.write_text("sleep 0.1 always")  # otherwise the job ends before it has died often enough
            job = client.train(photos, "moco", config=config, job_id="streamed")
            for attempt in range(1, num_deaths + 1):
                # Each attempt makes steps before it dies, so that neither an image nor the job is given up.
                wait_until(partial(has_begun, job, attempt), "this attempt", 60)
                wait_until(partial(is_beyond, job, last_step(job)), "a checkpoint of this attempt", 60)
                death.write_text("kill")
                wait_until(lambda: not death.exists(), "the death of a trainer that decodes", 60)
            pace.unlink()
            assert job.wait(timeout_s=60).state == "SUCCEEDED", job.info.failure
            assert job.info.attempt == num_deaths + 1
            assert exact(job) == exact(kept)
            assert last_checkpoint(stage.server, job) == last_checkpoint(stage.server, kept)
    finally:
        pace.unlink(missing_ok=True)
        stage.server.stop()
        stage.server.arguments = ()
        stage.server.start()


def last_step(job: manyview.Job) -> int:
    """Return the step of the newest checkpoint, or 0."""
    return int(job.refresh().latest_checkpoint.rpartition("/")[2] or 0)


def has_begun(job: manyview.Job, attempt: int) -> bool:
    """Has the job come to this attempt? The earlier ones write no checkpoint any more."""
    return job.refresh().attempt == attempt


def is_beyond(job: manyview.Job, step: int) -> bool:
    """Has the job written a checkpoint after this step?"""
    return last_step(job) > step
