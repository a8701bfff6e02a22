"""A trainer that hangs, crashes, meets hostile pixels, lacks memory or computes nonsense: each has its name, and none
takes anything else along. Faults happen inside of real trainers, at the steps and images that files name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import manyview
from support.learning.exactness import exact, last_checkpoint
from support.service.harness import SMALL_JOB, ServerProcess, wait_until, write_photos

pytestmark = pytest.mark.timeout(120)

JOB = SMALL_JOB | {"epochs": 4, "checkpoint_every_steps": 4, "evaluation": {"knn_every_epochs": 0}}
NUM_STEPS = 24
PATIENCE_S = 90.0
PATIENCE = ("--trainer-silence-s", "8", "--trainer-step-s", "8", "--decode-cpu-s", "1")


class Stage:
    """A server whose trainers fail at given places, and a data set."""

    def __init__(self, server: ServerProcess, client: manyview.Client, places: Path) -> None:
        self.server = server
        self.client = client
        self._places = places

    def fail(self, action: str, *places: str) -> None:
        for place in places:
            (self._places / place).write_text(action)

    def train(self) -> manyview.Job:
        """A job that has ended, somehow; no fault is left over for the next one."""
        job = self.client.train("photos", "moco", config=JOB)
        wait_until(lambda: job.refresh().is_terminal, "the end of the job", PATIENCE_S)
        for file in self._places.iterdir():
            file.unlink()
        assert not self.server.workers("trainer")
        assert self.client.health() == "SERVING"
        return job


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("trainer-faults")
    (folder / "places").mkdir()
    write_photos(folder / "photos", 96, seed=2)
    server = ServerProcess(folder / "data", *PATIENCE, catalogue=catalogue)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANYVIEW_FAILPOINTS", str(folder / "places"))
        server.start()
    with server.client() as client:
        client.upload(folder / "photos", dataset="photos")
        yield Stage(server, client, folder / "places")
    server.stop()
    wait_until(lambda: not server.processes(), "every process of the server is gone", 10)


@pytest.fixture(scope="module")
def alone(stage: Stage) -> manyview.Job:
    """The job that is left alone."""
    job = stage.train()
    assert (job.state, job.info.progress.step) == ("SUCCEEDED", NUM_STEPS)
    return job


def alerts(job: manyview.Job) -> list[str]:
    return [event["reason"] for event in job.metrics(kinds=["alert"])]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("stop", "it was silent for 8 seconds"),
        pytest.param("sleep 1000", "step 11 did not end within", marks=pytest.mark.long),
    ],
)
def test_a_trainer_that_hangs_is_replaced_and_the_job_ends_as_if_nothing_had_been(
    stage: Stage, alone: manyview.Job, action: str, message: str
) -> None:
    stage.fail(action, "trainer.step@11")
    job = stage.train()
    assert (job.state, job.info.attempt) == ("SUCCEEDED", 2)
    (recovering,) = [event for event in job.metrics(kinds=["state"]) if event["to"] == "RECOVERING"]
    assert recovering["reason"] == "STALLED"
    assert message in recovering["message"]
    assert exact(job) == exact(alone)
    assert last_checkpoint(stage.server, job) == last_checkpoint(stage.server, alone)


def test_a_trainer_that_crashes_at_the_same_step_again_and_again_fails_its_job_alone(stage: Stage) -> None:
    stage.fail("kill always", "trainer.step@6")
    job = stage.train()
    assert job.state == "FAILED"
    failure = job.info.failure
    assert failure is not None
    assert failure.reason == "CRASH_LOOP"
    assert "SIGKILL" in failure.message
    assert failure.hint
    # The checkpoint of step 4 is written beside the next steps: the first attempt may die before it is there.
    assert job.info.attempt in (4, 5), "three restarts brought no new checkpoint"
    assert last_checkpoint(stage.server, job), "what was learnt before is kept"


def test_an_image_that_kills_its_decoder_is_found_out_and_left_out_and_the_job_ends(stage: Stage) -> None:
    images = list(stage.client.images("photos"))
    victim = images[40]
    stage.fail("segv always", f"cache.decode@{int(victim.image_id, 16)}")
    job = stage.train()
    assert (job.state, alerts(job)) == ("SUCCEEDED", ["IMAGE_QUARANTINED"])
    (noted,) = stage.client.images("photos", ["UNREADABLE"])
    assert noted.error is not None
    assert (noted.image_id, noted.error.reason) == (victim.image_id, "DECODER_CRASHED")
    recoveries = [event["reason"] for event in job.metrics(kinds=["state"]) if event["to"] == "RECOVERING"]
    assert recoveries.count("TRAINER_DIED") == 2, "one death in company, one alone"


def test_an_image_that_takes_its_decoder_too_long_is_left_out_and_the_job_ends(stage: Stage) -> None:
    """The decoder holds the interpreter's lock, so nothing within the trainer can notice, and it sends no heartbeat."""
    victim = next(iter(stage.client.images("photos", ["STORED"])))
    stage.fail("burn 100 always", f"cache.decode@{int(victim.image_id, 16)}")
    job = stage.train()
    assert (job.state, alerts(job), job.info.attempt) == ("SUCCEEDED", ["IMAGE_QUARANTINED"], 2)
    noted = [image for image in stage.client.images("photos", ["UNREADABLE"]) if image.image_id == victim.image_id]
    assert [image.error.reason for image in noted if image.error] == ["DECODE_TOO_SLOW"]
    (recovering,) = [event for event in job.metrics(kinds=["state"]) if event["to"] == "RECOVERING"]
    assert recovering["reason"] == "DECODE_TOO_SLOW"
    assert victim.image_id in recovering["message"]


def test_a_lack_of_memory_fails_the_job_with_a_hint_and_changes_no_setting(stage: Stage) -> None:
    stage.fail("memory", "trainer.step@7")
    job = stage.train()
    failure = job.info.failure
    assert failure is not None
    assert (job.state, failure.reason) == ("FAILED", "DEVICE_OUT_OF_MEMORY")
    assert "batch_size" in failure.hint
    assert job.info.config["batch_size"] == JOB["batch_size"]


def test_one_step_that_is_not_finite_changes_nothing_and_three_in_a_row_fail_the_job(stage: Stage) -> None:
    stage.fail("nan", "trainer.step@5")
    job = stage.train()
    assert (job.state, alerts(job)) == ("SUCCEEDED", ["NON_FINITE_STEP"])
    # The first step finds an empty bank, so it has no loss.
    assert [row["step"] for row in job.history().rows if "loss" not in row] == [1, 5]
    assert job.history()["skipped_steps"][-1] == 1

    stage.fail("nan", *(f"trainer.step@{step}" for step in (9, 10, 11)))
    job = stage.train()
    failure = job.info.failure
    assert failure is not None
    assert (job.state, failure.reason) == ("FAILED", "NON_FINITE_LOSS")
    assert "step 11" in failure.message
    assert "learning_rate" in failure.hint
    embedded = stage.client.embed([stage.server.data_dir.parent / "photos" / "class0" / "00000.jpg"], model=job)
    assert not embedded.errors, "the last checkpoint is finite"
