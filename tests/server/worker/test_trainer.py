from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from manyview_server.messages import (
    CheckpointWritten,
    Heartbeat,
    Hello,
    ImageUnreadable,
    LogWritten,
    Message,
    ScalarsLogged,
    StartTraining,
    TrainingEnded,
    TrainingStarted,
)
from manyview_server.store import checkpoints
from manyview_server.worker import saver
from manyview_server.worker.channel import EXIT_ORPHANED
from manyview_server.worker.reporter import Progress, TrainingFailed
from manyview_server.worker.saver import CheckpointSaver
from manyview_server.worker.trainer import Trainer


class Sent:
    """A channel that keeps what is sent, and may do something about it."""

    def __init__(self, react: Callable[[Message], None] = lambda _: None) -> None:
        self.received: list[Message] = []
        self._react = react

    def send(self, message: Message) -> None:
        self.received.append(message)
        self._react(message)

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.received if isinstance(message, kind)]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, harness: ModuleType) -> StartTraining:
    directory = tmp_path_factory.mktemp("job")
    snapshot = harness.write_dataset(directory / "dataset", [*harness.digits(120), (b"\xff\xd8\xff junk", 0)])
    settings = harness.settings("moco", epochs=3, precision="float32")
    return harness.start_training(directory, snapshot, settings)


@pytest.fixture(scope="module")
def whole(start: StartTraining) -> Sent:
    """The job run from its beginning to its end, in this process."""
    sent = Sent()
    progress = Progress()
    assert Trainer(sent, start, threading.Event(), progress).train() == "succeeded"
    assert progress.step == progress.num_steps
    return sent


def losses(job: Any) -> dict[int, float]:
    return {m.step: m.values["loss"] for m in job.of(ScalarsLogged) if "loss" in m.values}


def changed(start: StartTraining, settings: dict[str, Any], directory: Path, **fields: Any) -> StartTraining:
    values = {name: getattr(start, name) for name in start.__dataclass_fields__}
    return StartTraining(
        **{**values, "settings": {**start.settings, **settings}, "checkpoint_dir": str(directory), **fields}
    )


def test_a_job_says_what_it_does_from_its_start_to_its_last_checkpoint(whole: Sent) -> None:
    (started,) = whole.of(TrainingStarted)
    assert started.num_epochs == 3
    assert started.resolved["decode_size"] == 16
    assert sorted(losses(whole)) == list(range(1, started.num_steps + 1))
    assert [image.reason for image in whole.of(ImageUnreadable)] == ["DECODE_FAILED"]
    values = {name: m.values[name] for m in whole.of(ScalarsLogged) for name in m.values}
    assert values["knn_top1"] > 0.5
    assert 0 <= values["knn_top1_untrained"] <= 1
    assert values["knn_top1_raw_pixels"] > 0.5
    assert {"step_ms", "images_per_second", "data_wait_fraction", "bank_fill", "memory_bytes"} <= set(values)


def test_each_epochs_checkpoint_is_whole_when_it_is_announced(whole: Sent) -> None:
    written = whole.of(CheckpointWritten)
    assert [message.epoch for message in written] == [1, 2, 3]
    for message in written:
        directory = Path(message.directory)
        assert checkpoints.num_bytes(checkpoints.verify(directory)) == message.num_bytes
        assert checkpoints.read_model_card(directory).to_json() == message.model
        position = whole.received.index(message)
        before = [m.step for m in whole.received[:position] if isinstance(m, ScalarsLogged) and "loss" in m.values]
        assert message.step in before


def test_a_killed_job_continues_as_if_nothing_had_happened(
    tmp_path: Path, harness: ModuleType, start: StartTraining, whole: Sent
) -> None:
    with harness.Worker("trainer") as worker:
        worker.send(changed(start, {}, tmp_path))
        worker.until(CheckpointWritten)
        worker.kill()
        assert worker.of(Hello)[0].pid == worker.process.pid
        assert worker.of(Heartbeat)
    newest = checkpoints.newest_good(tmp_path)
    assert newest is not None

    with harness.Worker("trainer") as worker:
        worker.send(changed(start, {}, tmp_path, attempt=2, resume_from=str(newest)))
        assert worker.until(TrainingEnded).outcome == "succeeded"
        assert worker.process.wait(10) == 0
        resumed = worker
    first = resumed.of(TrainingStarted)[0].step
    assert first == checkpoints.read_state(newest)["step"] > 0
    assert not [log for log in resumed.of(LogWritten) if "inexactly" in log.text]
    assert losses(resumed) == {step: loss for step, loss in losses(whole).items() if step > first}
    one, other = (Path(job.of(CheckpointWritten)[-1].directory) for job in (whole, resumed))
    for file in (checkpoints.BACKBONE, checkpoints.STATE):
        assert (one / file).read_bytes() == (other / file).read_bytes()


def test_a_trainer_whose_front_is_gone_ends(tmp_path: Path, harness: ModuleType, start: StartTraining) -> None:
    with harness.Worker("trainer") as worker:
        worker.send(changed(start, {"epochs": 100_000, "checkpoint_every_epochs": 99_999}, tmp_path))
        worker.until(ScalarsLogged)
        assert worker.close() == EXIT_ORPHANED


def test_a_stop_comes_through_at_the_next_step_and_leaves_a_checkpoint(tmp_path: Path, start: StartTraining) -> None:
    stop = threading.Event()
    sent = Sent(lambda message: stop.set() if isinstance(message, ScalarsLogged) and message.step == 3 else None)
    progress = Progress()
    job = changed(start, {"epochs": 100_000, "checkpoint_every_epochs": 99_999}, tmp_path)
    assert Trainer(sent, job, stop, progress).train() == "stopped"
    # Step 3 is told when step 4 is done.
    assert progress.step == 4
    (written,) = sent.of(CheckpointWritten)
    assert written.step == 4


def test_a_job_that_had_ended_when_it_was_killed_has_nothing_left_to_do(
    tmp_path: Path, start: StartTraining, whole: Sent
) -> None:
    sent = Sent()
    last = whole.of(CheckpointWritten)[-1].directory
    job = changed(start, {}, tmp_path, resume_from=last, attempt=2)
    assert Trainer(sent, job, threading.Event(), Progress()).train() == "succeeded"
    assert sent.of(ScalarsLogged) == []
    assert sent.of(CheckpointWritten) == []


@pytest.mark.parametrize(("epochs", "ends_after"), [(2, 2), (50, 3)])
def test_a_full_disk_is_an_alert_while_training_and_a_failure_in_the_end_or_at_the_third_time(
    tmp_path: Path, start: StartTraining, monkeypatch: pytest.MonkeyPatch, epochs: int, ends_after: int
) -> None:
    def write(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saver.state, "write", write)
    sent, progress = Sent(), Progress()
    with pytest.raises(TrainingFailed) as failed:
        Trainer(sent, changed(start, {"epochs": epochs}, tmp_path), threading.Event(), progress).train()
    assert failed.value.reason == "CHECKPOINT_FAILED"
    assert "resume the job" in failed.value.hint
    alerts = [message.reason for message in sent.received if type(message).__name__ == "AlertRaised"]
    assert set(alerts) == {"CHECKPOINT_FAILED"}
    # A write is known to have failed a moment after it was begun, and at the end it is tried once more.
    assert ends_after <= len(alerts) <= ends_after + 1
    assert ends_after <= progress.epoch <= ends_after + 1


def test_there_is_a_checkpoint_each_n_steps_and_each_few_minutes(
    tmp_path: Path, start: StartTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steps(name: str, **settings: Any) -> list[int]:
        sent = Sent()
        job = changed(start, {"checkpoint_every_epochs": 99, "max_steps": 7, **settings}, tmp_path / name)
        Trainer(sent, job, threading.Event(), Progress()).train()
        return [message.step for message in sent.of(CheckpointWritten)]

    assert steps("steps", checkpoint_every_steps=3) == [3, 6, 7]
    assert steps("neither", checkpoint_every_minutes=0) == [7]
    monkeypatch.setattr(CheckpointSaver, "minutes_since_last", property(lambda saver: 5.0))
    assert steps("minutes", checkpoint_every_minutes=5) == list(range(1, 8))
