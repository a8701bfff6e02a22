from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import ModuleType

import pytest

from manyview_server.learn import methods
from manyview_server.messages import ImageUnreadable, Message, StartTraining
from manyview_server.store import checkpoints
from manyview_server.store.checkpoints import CheckpointCorrupt
from manyview_server.worker import setup, state
from manyview_server.worker.reporter import Progress, TrainingFailed
from manyview_server.worker.setup import Setup, Stopped


class Sent:
    """A channel that keeps what is sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def send(self, message: Message) -> None:
        self.messages.append(message)


def prepare(start: StartTraining, sent: Sent | None = None, stopped: bool = False) -> Setup:
    return setup.prepare(start, sent or Sent(), Progress(), lambda: stopped)


@pytest.fixture
def start(tmp_path: Path, harness: ModuleType) -> StartTraining:
    snapshot = harness.write_dataset(tmp_path / "dataset", harness.digits(60))
    return harness.start_training(tmp_path, snapshot, harness.settings("moco", precision="float32"))


def refused(start: StartTraining) -> TrainingFailed:
    with pytest.raises(TrainingFailed) as caught:
        prepare(start)
    assert caught.value.hint
    return caught.value


def test_what_was_left_open_is_chosen_and_is_valid_as_a_setting(start: StartTraining) -> None:
    ready = prepare(start)
    resolved = ready.resolved()
    assert resolved["decode_size"] == 16
    assert resolved["memory_bank_size"] == ready.method.bank.size
    assert resolved["projection_hidden_dim"] == ready.method.encoder.backbone.feature_dim
    merged = {**start.settings, **resolved, "optimizer": {**start.settings["optimizer"], **resolved["optimizer"]}}
    again = prepare(dataclasses.replace(start, settings=merged))
    assert again.resolved() == resolved
    assert again.num_steps == ready.num_steps


def test_max_steps_and_warmup_are_in_steps_of_this_data_set(start: StartTraining) -> None:
    settings = {**start.settings, "max_steps": 5, "optimizer": {**start.settings["optimizer"], "warmup_epochs": 1.5}}
    ready = prepare(dataclasses.replace(start, settings=settings))
    assert ready.feed.steps_per_epoch == 2
    assert ready.num_steps == 4
    factors = [ready.optimizer.schedule.learning_rate_factor(ready.moment(step)) for step in range(4)]
    assert factors == pytest.approx([1 / 3, 2 / 3, 1, 0])
    ready = prepare(dataclasses.replace(start, settings={**settings, "max_steps": 3}))
    assert ready.num_steps == 3


def test_settings_that_are_wrong_are_refused(start: StartTraining) -> None:
    failed = refused(dataclasses.replace(start, settings={**start.settings, "batch_size": -1}))
    assert failed.reason == "CONFIG_INVALID"
    assert "batch_size" in str(failed)


def test_fewer_images_than_a_batch_are_refused_with_the_numbers(start: StartTraining) -> None:
    failed = refused(dataclasses.replace(start, settings={**start.settings, "batch_size": 60}))
    assert failed.reason == "DATASET_TOO_SMALL"
    assert "60 in the data set" in str(failed)
    assert "batch_size to at most" in failed.hint


def test_a_data_set_of_which_nothing_can_be_read_is_refused(tmp_path: Path, harness: ModuleType, start) -> None:
    snapshot = harness.write_dataset(tmp_path / "junk", [(bytes([n]) * 9, 0) for n in range(40)])
    blobs = (snapshot.tobytes(),)
    failed = refused(dataclasses.replace(start, dataset_dir=str(tmp_path / "junk"), blobs=blobs))
    assert failed.reason == "DATASET_UNREADABLE"
    assert "FORMAT_NOT_ALLOWED" in str(failed)


def test_unreadable_images_are_reported_one_by_one_up_to_a_limit(tmp_path, harness, start, monkeypatch) -> None:
    monkeypatch.setattr(setup, "MAX_UNREADABLE_REPORTED", 3)
    images = harness.digits(60) + [(bytes([n]) * 9, 0) for n in range(5)]
    snapshot = harness.write_dataset(tmp_path / "mixed", images)
    sent = Sent()
    mixed = dataclasses.replace(start, dataset_dir=str(tmp_path / "mixed"), blobs=(snapshot.tobytes(),))
    ready = prepare(mixed, sent)
    assert len([message for message in sent.messages if isinstance(message, ImageUnreadable)]) == 3
    assert ("warning", "5 images cannot be read and are left out") in ready.remarks


def test_a_stop_while_decoding_ends_it(start: StartTraining) -> None:
    with pytest.raises(Stopped):
        prepare(start, stopped=True)


def test_a_resumed_job_keeps_its_numerics_and_says_what_changed(tmp_path: Path, start: StartTraining) -> None:
    ready = prepare(start)
    run = {**ready.run_json(), "numerics": {"precision": "float32", "channels_last": False}, "num_threads": 7}
    card = ready.model_card("job", 2, 1)
    text = json.dumps({**run, "step": 2, "epoch": 1, "model": card.to_json()}).encode()
    directory = tmp_path / checkpoints.name(2, 1)
    state.write(directory, state.capture(ready.method, ready.optimizer), text)
    resumed = prepare(dataclasses.replace(start, resume_from=str(directory)))
    assert resumed.first_step == 2
    assert not resumed.numerics.channels_last
    assert resumed.inexact == (
        "num_threads is 1, and was 7 when the checkpoint was written: the job goes on, but not bit for bit",
    )
    other = {**start.settings, "projection_dim": 8}
    failed = refused(dataclasses.replace(start, resume_from=str(directory), settings=other))
    assert failed.reason == "CHECKPOINT_INCOMPATIBLE"
    (directory / checkpoints.STATE).write_bytes(b"")
    with pytest.raises(CheckpointCorrupt):
        prepare(dataclasses.replace(start, resume_from=str(directory)))


def test_the_card_describes_the_model(start: StartTraining) -> None:
    ready = prepare(start)
    card = ready.model_card("job", 4, 2)
    settings = methods.from_json(start.settings)
    assert (card.image_size, card.stem, card.feature_dim) == (16, "small", ready.method.encoder.backbone.feature_dim)
    assert card.mean == settings.views.normalize.mean
