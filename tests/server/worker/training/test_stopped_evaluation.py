"""An evaluation that a stop ends is made by the next attempt, before its first step."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from manyview_server.learn.methods import Method
from manyview_server.messages.training import CheckpointWritten, ScalarsLogged, StartTraining, StopTraining
from manyview_server.store.jobs import checkpoints
from manyview_server.worker.evaluation.knn import KnnEvaluation
from manyview_server.worker.training.trainer import Trainer
from support.learning import worker_harness
from support.learning.training import FIXED, Sent, changed, last_files, scalars, trained

NUM_EPOCHS = 3


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> StartTraining:
    directory = tmp_path_factory.mktemp("stopped")
    images = [(worker_harness.encoded(worker_harness.picture(n % 4, n, 24), "PNG"), n % 4) for n in range(90)]
    snapshot = worker_harness.write_dataset(directory / "dataset", images)
    settings = worker_harness.settings("simclr", epochs=NUM_EPOCHS, decode_size=24, **FIXED)
    return worker_harness.start_training(directory, snapshot, settings)


@pytest.fixture(scope="module")
def whole(start: StartTraining) -> Sent:
    """The job that nobody stops."""
    return trained(start)


def stopped_at(start: StartTraining, step: int, monkeypatch: pytest.MonkeyPatch) -> Sent:
    """Train until the evaluation after `step` steps, and stop the job while the first features are computed."""
    sent = Sent()
    trainer, embed = Trainer(sent, start), KnnEvaluation._embed

    def stopping(self: KnnEvaluation, method: Method, images: Tensor) -> Tensor:
        if trainer.progress.step == step:
            trainer.hear(StopTraining())
        return embed(self, method, images)

    with monkeypatch.context() as patch:
        patch.setattr(KnnEvaluation, "_embed", stopping)
        assert trainer.train() == "stopped"
    return sent


def last_step(sent: Sent, epoch: int) -> int:
    """Return the last step of an epoch, which count from 1. A checkpoint is written at the end of each."""
    step: int = sent.of(CheckpointWritten)[epoch - 1].step
    return step


@pytest.mark.parametrize("epoch", [1, NUM_EPOCHS])
def test_an_evaluation_that_was_stopped_is_made_after_the_resume(
    tmp_path: Path, start: StartTraining, whole: Sent, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    step = last_step(whole, epoch)
    stopped = stopped_at(changed(start, {}, tmp_path / "1"), step, monkeypatch)
    assert stopped.of(CheckpointWritten)[-1].step == step
    owing = stopped.of(CheckpointWritten)[-1].directory
    assert checkpoints.read_state(Path(owing))["owes_evaluation"] is True
    resumed = trained(changed(start, {}, tmp_path / "2", attempt=2, resume_from=owing))
    assert scalars(stopped, resumed) == scalars(whole)
    assert last_files(resumed) == last_files(whole)


def test_an_evaluation_is_owed_until_it_is_made_and_then_no_more(
    tmp_path: Path, start: StartTraining, whole: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = last_step(whole, 1)
    first = stopped_at(changed(start, {}, tmp_path / "1"), step, monkeypatch)
    owing = first.of(CheckpointWritten)[-1].directory
    hurried = stopped_at(changed(start, {}, tmp_path / "2", attempt=2, resume_from=owing), step, monkeypatch)
    assert not hurried.of(ScalarsLogged), "it was stopped again"
    assert not hurried.of(CheckpointWritten), "the checkpoint of the first attempt says the same"
    third = trained(changed(start, {}, tmp_path / "3", attempt=3, resume_from=owing))
    paid = third.of(CheckpointWritten)[0]
    assert paid.step == step
    assert checkpoints.read_state(Path(paid.directory))["owes_evaluation"] is False
    fourth = trained(changed(start, {}, tmp_path / "4", attempt=4, resume_from=paid.directory))
    assert scalars(fourth) == scalars(whole, after=step)
