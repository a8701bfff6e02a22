"""A job that follows its data set, to its end and over its deaths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manyview_server.messages.message import Message
from manyview_server.messages.training import (
    Adoption,
    CheckpointWritten,
    ImagesAdded,
    ImageUnreadable,
    ScalarsLogged,
    SnapshotAdopted,
    StartTraining,
    TrainingStarted,
)
from manyview_server.store.jobs import checkpoints
from manyview_server.worker.training.trainer import Trainer
from support.learning import worker_harness
from support.learning.training import FIXED, Sent, changed, losses

FOLLOWING = {"max_steps": 40, "checkpoint_every_epochs": 1, "optimizer": {"warmup_epochs": 1.5}}
FIRST = 40
"""Images that the job begins with."""


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> tuple[StartTraining, Any]:
    """A job that follows its data set, of which it has the first images, and the snapshot of all."""
    directory = tmp_path_factory.mktemp("following")
    snapshot = worker_harness.write_dataset(
        directory / "dataset", [*worker_harness.digits(120), (b"\xff\xd8\xff junk", 0)]
    )
    settings = worker_harness.settings("moco", batch_size=None, memory_bank_size=None, **FIXED, **FOLLOWING)
    first = (Adoption(step=0, epoch=0, num_images=FIRST),)
    return worker_harness.start_training(directory, snapshot[:FIRST], settings, follows=True, adoptions=first), snapshot


def rows(snapshot: Any, start: int, end: int) -> ImagesAdded:
    return ImagesAdded(blobs=(snapshot[start:end].tobytes(),))


def adoptions(job: Any) -> list[Adoption]:
    return [Adoption(step=m.step, epoch=m.epoch, num_images=m.num_images) for m in job.of(SnapshotAdopted)]


@pytest.fixture(scope="module")
def followed(growing: tuple[StartTraining, Any], tmp_path_factory: pytest.TempPathFactory) -> Sent:
    """The job run to its end, with images coming in after steps 3 and 15."""
    start, snapshot = growing

    def feed(message: Message) -> None:
        if isinstance(message, ScalarsLogged) and "loss" in message.values and message.step in (3, 15):
            trainer.hear(rows(snapshot, FIRST, 70) if message.step == 3 else rows(snapshot, 70, 121))

    sent = Sent(feed)
    trainer = Trainer(sent, changed(start, {}, tmp_path_factory.mktemp("followed")))
    assert trainer.train() == "succeeded"
    return sent


def test_a_job_that_follows_adopts_what_comes_at_the_beginning_of_an_epoch(followed: Sent) -> None:
    adopted = followed.of(SnapshotAdopted)
    assert [message.num_images for message in adopted] == [70, 121]
    assert [message.num_added for message in adopted] == [30, 51]
    assert adopted[0].step >= 3
    assert adopted[1].step >= 15
    assert sorted(losses(followed)) == list(range(2, 41)), "max_steps ends it, and no step is skipped"
    assert [image.reason for image in followed.of(ImageUnreadable)] == ["HEADER_CORRUPT"]
    at = {message.step: message.epoch for message in followed.of(CheckpointWritten)}
    for message in adopted:
        assert at[message.step] == message.epoch, "an epoch ended there"
    (started,) = followed.of(TrainingStarted)
    assert started.resolved["batch_size"] == 16, "what follows from the number of images stays as it was"
    rates = [m.values["learning_rate"] for m in followed.of(ScalarsLogged) if "learning_rate" in m.values]
    assert rates.index(max(rates)) == 1, "the warm-up is 1.5 epochs of the first images, which make one step each"


@pytest.mark.parametrize("epochs_done", [0, 1, 3, 6])
def test_a_job_that_follows_and_is_killed_adopts_the_same_at_the_same_steps_again(
    tmp_path: Path, growing: tuple[StartTraining, Any], followed: Sent, epochs_done: int
) -> None:
    start, snapshot = growing
    directory, first = "", 0
    if epochs_done:
        written = followed.of(CheckpointWritten)[epochs_done - 1]
        directory, first = written.directory, written.step
    logged = [*start.adoptions, *adoptions(followed)]
    since = tuple(adoption for adoption in logged if adoption.step >= first)
    sent = Sent()
    again = changed(start, {}, tmp_path, attempt=2, resume_from=directory, adoptions=since, blobs=(snapshot.tobytes(),))
    assert Trainer(sent, again).train() == "succeeded"
    assert adoptions(sent) == [adoption for adoption in logged[1:] if adoption.step >= first and
                               adoption.num_images > state_of(directory, FIRST)]  # fmt: skip
    assert losses(sent) == {step: loss for step, loss in losses(followed).items() if step > first}
    one, other = (Path(job.of(CheckpointWritten)[-1].directory) for job in (followed, sent))
    for file in (checkpoints.BACKBONE, checkpoints.STATE):
        assert (one / file).read_bytes() == (other / file).read_bytes()


def state_of(directory: str, default: int) -> int:
    """The number of images that a checkpoint was trained on."""
    return checkpoints.read_state(Path(directory))["adoptions"][-1]["num_images"] if directory else default


def test_another_job_s_checkpoint_brings_no_snapshots_of_its_own(
    tmp_path: Path, growing: tuple[StartTraining, Any], followed: Sent
) -> None:
    start, snapshot = growing
    source = followed.of(CheckpointWritten)[-1]
    begun = (Adoption(step=source.step, epoch=source.epoch, num_images=100),)
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / checkpoints.name(source.step, 0)
    checkpoints.copy(Path(source.directory), copy)
    other = {"train_job": "other", "resume_from": str(copy), "adoptions": begun}
    sent = Sent()
    resolved = checkpoints.read_state(Path(source.directory))["settings"]
    job = changed(start, resolved | {"max_steps": 50}, tmp_path, blobs=(snapshot[:100].tobytes(),), **other)
    assert Trainer(sent, job).train() == "succeeded"
    assert sorted(losses(sent)) == list(range(41, 51))
    assert checkpoints.read_state(Path(sent.of(CheckpointWritten)[-1].directory))["adoptions"][0]["num_images"] == 100
