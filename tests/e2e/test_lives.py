"""A job that is paused, resumed, killed and continued is, step for step, the job that was left alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import manyview
from support.learning.exactness import exact, last_checkpoint
from support.service.harness import SMALL_JOB, ServerProcess, jpeg, wait_until, write_photos

pytestmark = pytest.mark.timeout(180)

EPOCHS = 6
JOB = {**SMALL_JOB, "checkpoint_every_epochs": 1}


def assert_same_end(server: ServerProcess, one: manyview.Job, other: manyview.Job) -> None:
    """The same losses at every step, and the same tensors in the last checkpoint, bit for bit."""
    assert exact(one) == exact(other)
    assert last_checkpoint(server, one) == last_checkpoint(server, other)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of failpoints for the trainers of the server."""
    return tmp_path_factory.mktemp("places")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, catalogue: Path, places: Path) -> Iterator[ServerProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANYVIEW_FAILPOINTS", str(places))
        own = ServerProcess(tmp_path_factory.mktemp("own") / "data", catalogue=catalogue, one_core=True)
        own.start()
        yield own
        own.stop()
        wait_until(own.is_gone, "every process of the server is gone", 10)


@pytest.fixture(scope="module")
def photos(client: manyview.Client, tmp_path_factory: pytest.TempPathFactory) -> manyview.Dataset:
    folder = tmp_path_factory.mktemp("lives")
    write_photos(folder, 96, seed=3)
    return client.upload(folder, dataset="lives")


@pytest.mark.parametrize("method", [pytest.param("simclr", marks=pytest.mark.long), "moco"])
def test_a_job_that_is_paused_and_resumed_over_a_crash_ends_as_if_nothing_had_been(
    server: ServerProcess, client: manyview.Client, photos: manyview.Dataset, places: Path, method: str
) -> None:
    """The trainer waits at a step while the client acts, because a busy client could come after the last step.

    An evaluation is due at step 20: the second pause stops it, and the next attempt makes it.
    """
    alone = client.train(photos, method, epochs=EPOCHS, config=JOB)
    alone.wait(timeout_s=60)
    early, late = places / "trainer.step@5", places / "trainer.step@20"
    for place in (early, late):
        place.write_text("hold")
    job = client.train(photos, method, epochs=EPOCHS, config=JOB)
    wait_until(lambda: job.refresh().progress.step >= 4, "step 4", 40)
    assert job.pause().state == "PAUSING"
    early.unlink()
    waiting = client.train(photos, method, epochs=1, config=JOB)
    wait_until(lambda: job.refresh().state == "PAUSED", "paused")
    paused_at = job.info.progress.step
    assert job.info.latest_checkpoint.endswith(f"/{paused_at}"), "a pause is a checkpoint"
    waiting.wait(timeout_s=40)
    assert job.refresh().state == "PAUSED", "the other job has the device"
    server.kill()
    server.start()
    assert job.refresh().state == "PAUSED", "a server that comes back lets it rest"
    job.resume()
    wait_until(lambda: job.refresh().progress.step > paused_at, "it continues", 40)
    job.pause()
    job.resume()
    late.unlink()
    assert job.wait(timeout_s=60).attempt >= 2
    events = list(job.metrics())
    assert [event.sequence for event in events] == list(range(1, job.refresh().last_sequence + 1))
    assert_same_end(server, alone, job)


def test_a_job_is_continued_to_more_epochs_and_cloned_to_the_same_run(
    server: ServerProcess, client: manyview.Client, photos: manyview.Dataset
) -> None:
    first = client.train(photos, "moco", epochs=2, config=JOB)
    first.wait(timeout_s=60)
    clone = client.train(clone_from=first)
    clone.wait(timeout_s=60)
    assert_same_end(server, first, clone)

    last = first.info.progress.step
    longer = client.train(continue_from=first, epochs=4, config={"optimizer": {"learning_rate": 0.01}})
    assert (longer.info.continued_from, longer.info.progress.step) == (first.info.latest_checkpoint, last)
    assert client.embed(jpeg(), model=longer).checkpoint.startswith(longer.name), "it can be used before it runs"
    info = longer.wait(timeout_s=60)
    assert info.progress.step == 2 * last
    assert [row["step"] for row in exact(longer) if "loss" in row] == list(range(last + 1, 2 * last + 1))

    with pytest.raises(manyview.InvalidArgument, match=r"config\.epochs: must be above 4, the epochs that the"):
        client.train(continue_from=longer.name, epochs=3)
    with pytest.raises(manyview.InvalidArgument, match=r"config\.projection_dim: must stay 128"):
        client.train(continue_from=first, config={"projection_dim": 64})
    with pytest.raises(ValueError, match="dataset is required"):
        client.train(method="moco")
