from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from manyview_server.learn import backbones, methods
from manyview_server.learn.evaluation import linear_probe
from manyview_server.messages.training import Adoption, StartTraining
from manyview_server.store.jobs import checkpoints
from manyview_server.store.jobs.checkpoints import CheckpointCorrupt
from manyview_server.worker import checkpoint_state
from manyview_server.worker.precision import Numerics
from manyview_server.worker.training import preparation
from manyview_server.worker.training.preparation import Stopped
from manyview_server.worker.training.prepared_job import PreparedJob
from manyview_server.worker.training.progress import Stage, TrainerProgress
from manyview_server.worker.training.start_log import inexact_resume_lines, start_lines
from manyview_server.worker.training_failed import TrainingFailed
from support.learning import worker_harness
from support.learning.training import Sent


def prepare(start: StartTraining, stopped: bool = False) -> PreparedJob:
    return preparation.prepare(start, Sent(), TrainerProgress(), lambda: stopped)


@pytest.fixture
def start(tmp_path: Path) -> StartTraining:
    snapshot = worker_harness.write_dataset(tmp_path / "dataset", worker_harness.digits(60))
    return worker_harness.start_training(tmp_path, snapshot, worker_harness.settings("moco", precision="float32"))


def refused(start: StartTraining, stage: Stage | None = None) -> TrainingFailed:
    """Prepare a job that cannot be trained; `stage` is where this must show."""
    progress = TrainerProgress()
    with pytest.raises(TrainingFailed) as caught:
        preparation.prepare(start, Sent(), progress, lambda: False)
    assert caught.value.hint
    assert stage in (None, progress.stage)
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


def test_the_size_of_a_queue_is_chosen_and_told(start: StartTraining) -> None:
    ready = prepare(dataclasses.replace(start, settings=worker_harness.settings("swav", precision="float32")))
    assert ready.method.queue is not None
    assert ready.resolved()["queue_size"] == ready.method.queue.size


def test_a_moment_says_which_pass_over_the_images_it_is_in(start: StartTraining) -> None:
    ready = prepare(start)
    assert [ready.moment(step).image_epoch for step in range(3 * ready.feed.steps_per_epoch)] == [
        ready.feed.epoch_of(step) for step in range(3 * ready.feed.steps_per_epoch)
    ]
    longer = dataclasses.replace(ready, steps_per_epoch=1)  # as it was before images were adopted
    assert longer.moment(ready.feed.steps_per_epoch - 1).image_epoch == 0


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


def test_a_stop_before_the_model_is_built_ends_it(start: StartTraining) -> None:
    with pytest.raises(Stopped):
        prepare(start, stopped=True)


def test_a_resumed_job_keeps_its_numerics_and_says_what_changed(tmp_path: Path, start: StartTraining) -> None:
    ready = prepare(start)
    run = {**ready.run_json(), "numerics": {"precision": "float32", "channels_last": False}, "num_threads": 7}
    del run["views_version"]  # as in checkpoints of the first version
    card = ready.model_card("job", 2, 1)
    text = json.dumps({**run, "step": 2, "epoch": 1, "model": card.to_json()}).encode()
    directory = tmp_path / checkpoints.name(2, 1)
    checkpoint_state.write(directory, checkpoint_state.capture(ready.method, ready.optimizer), text)
    resumed = prepare(dataclasses.replace(start, resume_from=str(directory)))
    assert resumed.first_step == 2
    assert not resumed.numerics.channels_last
    assert list(inexact_resume_lines(resumed)) == [
        "num_threads is 1, but was 7 when the checkpoint was written: the job continues, but not bit for bit",
        "views_version is 2, but was 1 when the checkpoint was written: the job continues, but not bit for bit",
    ]
    other = {**start.settings, "projection_dim": 8}
    failed = refused(dataclasses.replace(start, resume_from=str(directory), settings=other))
    assert failed.reason == "CHECKPOINT_INCOMPATIBLE"
    (directory / checkpoints.STATE).write_bytes(b"")
    with pytest.raises(CheckpointCorrupt):
        prepare(dataclasses.replace(start, resume_from=str(directory)))


def test_a_job_of_a_release_without_alarms_goes_on_and_one_that_lacks_more_is_incompatible(
    tmp_path: Path, start: StartTraining
) -> None:
    ready = prepare(start)
    run = {**ready.run_json(), "step": 2, "epoch": 1, "model": ready.model_card("job", 2, 1).to_json()}
    for lacks, reason in (({"alarms"}, ""), ({"alarms", "num_steps"}, "it lacks num_steps")):
        directory = tmp_path / str(len(lacks)) / checkpoints.name(2, 1)
        text = json.dumps({name: value for name, value in run.items() if name not in lacks}).encode()
        checkpoint_state.write(directory, checkpoint_state.capture(ready.method, ready.optimizer), text)
        again = dataclasses.replace(start, resume_from=str(directory))
        if not reason:
            assert prepare(again).first_step == 2
        else:
            failed = refused(again)
            assert failed.reason == "CHECKPOINT_INCOMPATIBLE"
            assert reason in str(failed)


def test_alarms_and_probe_go_on_with_the_jobs_own_checkpoint_and_not_with_another_jobs(
    tmp_path: Path, start: StartTraining
) -> None:
    ready = prepare(start)
    ready.alarms.see(1, {"projection_std_ratio": 0.7})
    assert ready.probe is not None
    ready.probe.learn(torch.randn(64, ready.probe.mean.numel()), torch.arange(64) % 4, torch.tensor(True))
    card = ready.model_card("job", 2, 1)
    text = json.dumps({**ready.run_json(), "step": 2, "epoch": 1, "model": card.to_json()}).encode()
    for attempt in (0, 1):  # a checkpoint of attempt 0 is the copy of another job's
        directory = tmp_path / str(attempt) / checkpoints.name(2, attempt)
        checkpoint_state.write(directory, checkpoint_state.capture(ready.method, ready.optimizer, ready.probe), text)
        resumed = prepare(dataclasses.replace(start, resume_from=str(directory)))
        assert (resumed.alarms == ready.alarms) is bool(attempt)
        assert resumed.probe is not None
        assert torch.equal(resumed.probe.weight, ready.probe.weight) is bool(attempt)
        assert attempt == 0 or resumed.probe.weight.any()


def test_a_job_that_follows_has_room_in_its_probe_for_labels_that_come_later(tmp_path: Path) -> None:
    images = worker_harness.digits(60, classes=2) + worker_harness.digits(60, classes=4)
    snapshot = worker_harness.write_dataset(tmp_path / "dataset", images)
    begun = Adoption(step=0, epoch=0, num_images=60)
    settings = worker_harness.settings("moco", precision="float32", max_steps=9)
    start = worker_harness.start_training(tmp_path, snapshot, settings, follows=True, adoptions=(begun,))
    ready = prepare(start)
    assert ready.probe is not None
    assert (ready.images.num_classes, ready.probe.num_classes) == (2, 2)
    grown = ready.adopt(Adoption(step=3, epoch=1, num_images=120))
    assert grown.probe is ready.probe
    assert (grown.images.num_classes, ready.probe.num_classes) == (4, 4)


def test_more_labels_than_a_probe_takes_are_told_and_cost_nothing(
    start: StartTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepare(start).probe is not None
    monkeypatch.setattr(linear_probe, "MAX_CLASSES", 3)
    ready = prepare(start)
    assert ready.probe is None
    assert ("warning", "no linear probe: it takes at most 3 labels, and these are 4") in start_lines(ready)


def test_a_probe_ends_where_labels_that_come_later_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = worker_harness.digits(60, classes=2) + worker_harness.digits(60, classes=4)
    snapshot = worker_harness.write_dataset(tmp_path / "dataset", images)
    begun = Adoption(step=0, epoch=0, num_images=60)
    settings = worker_harness.settings("moco", precision="float32", max_steps=9)
    monkeypatch.setattr(linear_probe, "MAX_CLASSES", 3)
    ready = prepare(worker_harness.start_training(tmp_path, snapshot, settings, follows=True, adoptions=(begun,)))
    assert ready.probe is not None
    assert ready.adopt(Adoption(step=3, epoch=1, num_images=120)).probe is None


def test_a_probe_begins_with_the_first_labels(tmp_path: Path) -> None:
    images = [(data, -1) for data, _ in worker_harness.digits(60)] + worker_harness.digits(120)[60:]
    snapshot = worker_harness.write_dataset(tmp_path / "dataset", images)
    begun = Adoption(step=0, epoch=0, num_images=60)
    settings = worker_harness.settings("moco", precision="float32", max_steps=9)
    ready = prepare(worker_harness.start_training(tmp_path, snapshot, settings, follows=True, adoptions=(begun,)))
    assert ready.probe is None
    probe = ready.adopt(Adoption(step=3, epoch=1, num_images=120)).probe
    assert probe is not None
    assert probe.num_classes == 4


def test_the_card_describes_the_model(start: StartTraining) -> None:
    ready = prepare(start)
    card = ready.model_card("job", 4, 2)
    settings = methods.from_json(start.settings)
    assert (card.image_size, card.stem, card.feature_dim) == (16, "small", ready.method.encoder.backbone.feature_dim)
    assert (card.stem_relu, card.patch_size) == (True, None)
    assert card.mean == settings.views.normalize.mean
    assert (card.transparency, card.color_profile) == ("white", "srgb")


@pytest.mark.parametrize(("changes", "level"), [({}, 255), ({"transparency": "black"}, 0), (None, 70)])
def test_a_job_trains_and_embeds_by_its_own_rule_for_transparency(
    tmp_path: Path, changes: dict[str, str] | None, level: int
) -> None:
    clear = worker_harness.encoded(np.full((16, 16, 4), (70, 70, 70, 0), np.uint8))
    snapshot = worker_harness.write_dataset(tmp_path / "dataset", [(clear, 0), *worker_harness.digits(60)])
    settings = {**worker_harness.settings("moco", precision="float32"), **(changes or {})}
    if changes is None:  # a job of a release that had no choice
        del settings["transparency"], settings["color_profile"]
    ready = prepare(worker_harness.start_training(tmp_path, snapshot, settings))
    assert ready.decoded.gather(torch.tensor([0])).images.unique().tolist() == [level]
    card = ready.model_card("job", 4, 2)
    assert card.transparency == {255: "white", 0: "black", 70: "drop"}[level]
    assert card.color_profile == ("ignore" if changes is None else "srgb")


def test_nothing_is_decoded_before_it_is_needed(start: StartTraining) -> None:
    ready = prepare(start)
    assert ready.decoded.findings.num_read == 0
    assert any("kept in: device" in text for _, text in start_lines(ready))
    beyond = prepare(dataclasses.replace(start, cache_bytes=20 * 16 * 16 * 3))
    (text,) = [text for _, text in start_lines(beyond) if "decoded to" in text]
    assert "with room for 20 of 60 decoded images (15,360 bytes): the others are decoded again in each epoch" in text


def test_the_untrained_network_is_built_once_more_bit_for_bit(weights: StartTraining) -> None:
    for start in (weights, dataclasses.replace(weights, settings={**weights.settings, "backbone_weights": None})):
        ready = prepare(start)
        before = torch.get_rng_state()
        again = ready.untrained()
        assert again is not None
        assert torch.equal(torch.get_rng_state(), before)
        found, expected = again.state_dict(), ready.method.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_weights_that_were_replaced_since_give_no_untrained_network(tmp_path: Path, weights: StartTraining) -> None:
    ready = prepare(weights)
    file = tmp_path / "weights" / "mine.safetensors"
    theirs = load_file(file)
    save_file({name: tensor + 1 for name, tensor in theirs.items()}, file)
    assert ready.untrained() is None
    file.unlink()
    assert ready.untrained() is None


def test_a_vision_transformers_patches_are_chosen_told_and_written_down(start: StartTraining) -> None:
    settings = {**start.settings, "backbone": "vit_tiny", "backbone_width": 0.3}
    ready = prepare(dataclasses.replace(start, settings=settings))
    assert ready.resolved()["patch_size"] == 2
    assert "stem" not in ready.resolved(), "it has none"
    assert next(start_lines(ready))[1].startswith("backbone vit_tiny, patch_size 2: 64 features, ")
    card = ready.model_card("job", 4, 2)
    assert (card.backbone, card.backbone_width, card.patch_size, card.stem) == ("vit_tiny", 0.3, 2, "auto")


def test_the_stem_is_chosen_told_and_written_down(start: StartTraining) -> None:
    ready = prepare(dataclasses.replace(start, settings={**start.settings, "stem_relu": False}))
    assert ready.resolved()["stem"] == "small"
    assert next(start_lines(ready))[1].startswith("backbone resnet9, stem small: 64 features, ")
    assert ready.model_card("job", 4, 2).stem_relu is False


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ({"backbone": "vit_tiny", "image_size": 33}, "image_size: must be even, because vit_tiny divides"),
        ({"backbone": "vit_tiny", "patch_size": 5}, "nearest: 15 or 20"),
        ({"backbone": "vit_tiny", "stem": "small"}, "stem has no effect on backbone 'vit_tiny'"),
        ({"patch_size": 4}, "patch_size has no effect on backbone 'resnet9'"),
        ({"stem": "imagenet", "stem_relu": False}, "stem_relu: only the small stem"),
    ],
)
def test_what_a_backbone_cannot_be_is_refused(start: StartTraining, overrides: dict[str, object], why: str) -> None:
    values = {**start.settings, "backbone_width": 1.0, **overrides}
    failed = refused(dataclasses.replace(start, settings=values))
    assert failed.reason == "CONFIG_INVALID"
    assert why in str(failed)


@pytest.fixture
def weights(tmp_path: Path, start: StartTraining) -> StartTraining:
    """The job, beginning with weights of the operator's."""
    (tmp_path / "weights").mkdir()
    torch.manual_seed(77)
    theirs = backbones.build("resnet9", width=0.125, image_size=16)
    save_file(theirs.state_dict(), tmp_path / "weights" / "mine.safetensors")
    settings = {**start.settings, "backbone_weights": "mine.safetensors"}
    return dataclasses.replace(start, settings=settings, weights_dir=str(tmp_path / "weights"))


def test_a_job_begins_with_the_operators_weights_and_says_which(tmp_path: Path, weights: StartTraining) -> None:
    ready = prepare(weights)
    theirs = load_file(tmp_path / "weights" / "mine.safetensors")
    found = ready.method.encoder.backbone.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in theirs.items())
    sha256 = hashlib.sha256((tmp_path / "weights" / "mine.safetensors").read_bytes()).hexdigest()
    assert list(start_lines(ready))[1] == ("info", f"it starts with mine.safetensors, SHA-256 {sha256}")
    assert ready.run_json()["initial_weights"] == {"file": "mine.safetensors", "sha256": sha256}


def test_a_resumed_job_takes_its_checkpoint_and_still_says_what_it_began_with(
    tmp_path: Path, weights: StartTraining
) -> None:
    ready = prepare(weights)
    card = ready.model_card("job", 2, 1)
    text = json.dumps({**ready.run_json(), "step": 2, "epoch": 1, "model": card.to_json()}).encode()
    directory = tmp_path / checkpoints.name(2, 1)
    checkpoint_state.write(directory, checkpoint_state.capture(ready.method, ready.optimizer), text)
    (tmp_path / "weights" / "mine.safetensors").unlink()
    resumed = prepare(dataclasses.replace(weights, resume_from=str(directory)))
    assert resumed.run_json()["initial_weights"] == ready.run_json()["initial_weights"]
    assert not any("starts with" in text for _, text in start_lines(resumed))


def test_weights_that_do_not_fit_are_refused_before_the_images_are_decoded(
    weights: StartTraining,
) -> None:
    failed = refused(dataclasses.replace(weights, settings={**weights.settings, "stem": "imagenet"}), "starting")
    assert failed.reason == "CONFIG_INVALID"
    assert "with another shape: conv1.weight (8, 3, 3, 3) instead of (8, 3, 7, 7)" in str(failed)
    gone = {**weights.settings, "backbone_weights": "gone.safetensors"}
    assert "'gone.safetensors' cannot be read" in str(refused(dataclasses.replace(weights, settings=gone), "starting"))


def test_weights_that_are_not_finite_are_refused_before_the_images_are_decoded(
    tmp_path: Path, weights: StartTraining
) -> None:
    theirs = load_file(tmp_path / "weights" / "mine.safetensors")
    theirs["conv1.weight"][3] = torch.nan
    save_file(theirs, tmp_path / "weights" / "mine.safetensors")
    failed = refused(weights, "starting")
    assert (failed.reason, failed.hint) == (
        "CONFIG_INVALID",
        "Replace the file on the server, and create the job again.",
    )
    expected = (
        "backbone_weights: 'mine.safetensors' is damaged: the weights are not finite: conv1.weight (27 of 216 values)"
    )
    assert str(failed) == expected


@pytest.mark.parametrize("file", [checkpoints.BACKBONE, checkpoints.STATE])
def test_a_checkpoint_that_is_not_finite_is_corrupt(tmp_path: Path, start: StartTraining, file: str) -> None:
    ready = prepare(start)
    tensors = checkpoint_state.capture(ready.method, ready.optimizer)
    name = next(name for name in tensors[file] if file == checkpoints.BACKBONE or name.startswith("optimizer.0."))
    tensors[file][name].view(-1)[0] = torch.inf
    card = ready.model_card("job", 2, 1)
    text = json.dumps({**ready.run_json(), "step": 2, "epoch": 1, "model": card.to_json()}).encode()
    directory = tmp_path / checkpoints.name(2, 1)
    checkpoint_state.write(directory, tensors, text)
    failed = refused(dataclasses.replace(start, resume_from=str(directory)))
    assert failed.reason == "CHECKPOINT_CORRUPT"
    assert "000000002-1: the weights are not finite: " in str(failed)
    assert " (1 of " in str(failed)


def test_a_checkpoint_says_how_float32_was_computed_and_an_older_one_need_not(start: StartTraining) -> None:
    written = prepare(start).run_json()["numerics"]
    assert written.pop("float32_products") == "ieee"
    assert Numerics(**written).float32_products == "ieee"


def test_without_a_file_nothing_is_said_of_one(start: StartTraining) -> None:
    ready = prepare(start)
    assert ready.run_json()["initial_weights"] is None
    assert not any("starts with" in text for _, text in start_lines(ready))
