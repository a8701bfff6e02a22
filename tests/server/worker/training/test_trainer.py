from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from manyview_server.learn.plugins import PluginBroken
from manyview_server.link.decode_notes import ALONE
from manyview_server.messages.message import Hello, Message
from manyview_server.messages.training import (
    AlertRaised,
    CheckpointWritten,
    Heartbeat,
    ImageUnreadable,
    LogWritten,
    ScalarsLogged,
    StartTraining,
    StopTraining,
    TrainingEnded,
    TrainingStarted,
)
from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.store.jobs import checkpoints
from manyview_server.worker.channel import EXIT_ORPHANED
from manyview_server.worker.evaluation.knn import KnnEvaluation
from manyview_server.worker.training.progress import Stage, TrainerProgress
from manyview_server.worker.training.trainer import Trainer
from manyview_server.worker.training_failed import TrainingFailed
from support.learning import worker_harness
from support.learning.training import FIXED, Sent, changed, losses
from support.service import plugins
from support.service.plugins import POSTERIZE


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> StartTraining:
    directory = tmp_path_factory.mktemp("job")
    snapshot = worker_harness.write_dataset(
        directory / "dataset", [*worker_harness.digits(120), (b"\xff\xd8\xff junk", 0)]
    )
    settings = worker_harness.settings("moco", epochs=3, **FIXED)
    return worker_harness.start_training(directory, snapshot, settings)


@pytest.fixture(scope="module")
def whole(start: StartTraining) -> Sent:
    """The job run from its beginning to its end, in this process."""
    sent = Sent()
    trainer = Trainer(sent, start)
    assert trainer.train() == "succeeded"
    assert trainer.progress.step == trainer.progress.num_steps
    return sent


def test_a_job_says_what_it_does_from_its_start_to_its_last_checkpoint(whole: Sent) -> None:
    (started,) = whole.of(TrainingStarted)
    assert started.num_epochs == 3
    assert started.resolved["decode_size"] == 16
    assert sorted(losses(whole)) == list(range(2, started.num_steps + 1)), "the first step finds an empty bank"
    assert [image.reason for image in whole.of(ImageUnreadable)] == ["HEADER_CORRUPT"]
    values = {name: m.values[name] for m in whole.of(ScalarsLogged) for name in m.values}
    assert values["knn_top1"] > 0.5
    assert 0 <= values["knn_top1_untrained"] <= 1
    assert values["knn_top1_raw_pixels"] > 0.5
    assert values["knn_top1_k20_t0.07"] > 0.5
    assert values["linear_top1"] > 0.5
    assert {"effective_rank", "alignment", "uniformity", "projection_std_ratio", "chance_loss"} <= set(values)
    assert {"step_ms", "images_per_second", "data_wait_fraction", "bank_fill", "memory_bytes"} <= set(values)


def test_each_stage_of_a_trainer_counts_the_images_that_it_announced(
    tmp_path: Path, start: StartTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[tuple[str, int, int]] = []
    enter = TrainerProgress.start

    def recorded(self: TrainerProgress, stage: Stage, images_total: int = 0) -> None:
        stages.append((self.stage, self.images_done, self.images_total))
        enter(self, stage, images_total)

    monkeypatch.setattr(TrainerProgress, "start", recorded)
    assert Trainer(Sent(), changed(start, {"epochs": 1}, tmp_path)).train() == "succeeded"
    num_images = len(np.frombuffer(start.blobs[0], SNAPSHOT_DTYPE))
    assert [stage for stage, _, _ in stages] == [
        *("starting", "building", "measuring the baseline", "training", "evaluating")
    ]
    assert all(done == total for _, done, total in stages)
    totals = {stage: total for stage, _, total in stages}
    assert 0 < totals["evaluating"] <= num_images
    assert totals["measuring the baseline"] == 2 * totals["evaluating"]


def test_each_epochs_checkpoint_is_whole_when_it_is_announced(whole: Sent) -> None:
    written = whole.of(CheckpointWritten)
    assert [message.epoch for message in written] == [1, 2, 3]
    for message in written:
        directory = Path(message.directory)
        assert checkpoints.num_bytes(checkpoints.verify(directory)) == message.num_bytes
        assert checkpoints.read_state(directory)["model"] == message.model
        position = whole.received.index(message)
        before = [m.step for m in whole.received[:position] if isinstance(m, ScalarsLogged) and "loss" in m.values]
        assert message.step in before


def test_a_killed_job_continues_as_if_nothing_had_happened(tmp_path: Path, start: StartTraining, whole: Sent) -> None:
    with worker_harness.Worker("trainer") as worker:
        worker.send(changed(start, {}, tmp_path))
        worker.until(CheckpointWritten)
        worker.process.kill()
        assert worker.of(Hello)[0].pid == worker.process.pid
        assert worker.of(Heartbeat)
    newest = max(path for path in tmp_path.iterdir() if checkpoints.parse_name(path))
    checkpoints.verify(newest)

    with worker_harness.Worker("trainer") as worker:
        worker.send(changed(start, {}, tmp_path, attempt=2, resume_from=str(newest)))
        assert worker.until(TrainingEnded).outcome == "succeeded"
        assert worker.process.wait(10) == 0
        resumed = worker
    first = resumed.of(TrainingStarted)[0].step
    assert first == checkpoints.read_state(newest)["step"] > 0
    assert not resumed.of(AlertRaised)
    assert losses(resumed) == {step: loss for step, loss in losses(whole).items() if step > first}
    one, other = (Path(job.of(CheckpointWritten)[-1].directory) for job in (whole, resumed))
    for file in (checkpoints.BACKBONE, checkpoints.STATE):
        assert (one / file).read_bytes() == (other / file).read_bytes()


def test_a_trainer_whose_front_is_gone_ends(tmp_path: Path, start: StartTraining) -> None:
    with worker_harness.Worker("trainer") as worker:
        worker.send(changed(start, {"epochs": 100_000, "checkpoint_every_epochs": 99_999}, tmp_path))
        worker.until(ScalarsLogged)
        assert worker.close() == EXIT_ORPHANED


def tensors(job: Any, file: str) -> dict[str, bytes]:
    """Return the tensors of the last checkpoint, without the probe's."""
    saved = load_file(last_directory(job) / file)
    return {name: tensor.tobytes() for name, tensor in saved.items() if not name.startswith("probe.")}


def test_the_probe_changes_nothing_else(tmp_path: Path, start: StartTraining, whole: Sent) -> None:
    without = Sent()
    evaluation = {**start.settings["evaluation"], "linear_probe": False}
    Trainer(without, changed(start, {"evaluation": evaluation}, tmp_path)).train()
    assert losses(without) == losses(whole)
    for file in (checkpoints.BACKBONE, checkpoints.STATE):
        assert tensors(without, file) == tensors(whole, file)
    saved = [load_file(last_directory(job) / checkpoints.STATE) for job in (whole, without)]
    assert ["probe.weight" in state for state in saved] == [True, False]
    assert not any("linear_top1" in message.values for message in without.of(ScalarsLogged))


def test_without_labels_there_is_no_probe_and_no_evaluation(tmp_path: Path) -> None:
    snapshot = worker_harness.write_dataset(tmp_path / "dataset", [(data, -1) for data, _ in worker_harness.digits(40)])
    sent = Sent()
    job = worker_harness.start_training(tmp_path, snapshot, worker_harness.settings("simclr", epochs=1, **FIXED))
    assert Trainer(sent, job).train() == "succeeded"
    assert not [name for m in sent.of(ScalarsLogged) for name in m.values if name.startswith(("knn", "linear"))]
    assert not any(name.startswith("probe.") for name in load_file(last_directory(sent) / checkpoints.STATE))


def log_lines(job: Any) -> list[tuple[str, str]]:
    return [(message.level, message.text) for message in job.of(LogWritten)]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([0] * 60, "every labelled image has the same label"),
        (list(range(60)), "each label occurs once"),
        ([0, 1] * 4 + [-1] * 52, "labelled images are held out; at least 5 are needed"),
    ],
    ids=["one label", "a label each", "few labels"],
)
def test_a_job_whose_knn_would_say_nothing_says_why_and_reports_none(
    tmp_path: Path, labels: list[int], says: str
) -> None:
    images = [(data, label) for (data, _), label in zip(worker_harness.digits(60), labels, strict=True)]
    snapshot = worker_harness.write_dataset(tmp_path / "dataset", images)
    sent = Sent()
    job = worker_harness.start_training(tmp_path, snapshot, worker_harness.settings("simclr", epochs=1, **FIXED))
    assert Trainer(sent, job).train() == "succeeded"
    assert not [name for m in sent.of(ScalarsLogged) for name in m.values if name.startswith(("knn", "linear"))]
    (line,) = [(level, text) for level, text in log_lines(sent) if "kNN" in text]
    assert line[0] == "warning"
    assert line[1].startswith("kNN is not measured: ")
    assert says in line[1]


@pytest.mark.parametrize(("knn_top1", "warns"), [(0.25, True), (1.0, False)])
def test_a_job_that_ends_below_raw_pixels_says_so_also_after_a_restart(
    tmp_path: Path, start: StartTraining, whole: Sent, monkeypatch: pytest.MonkeyPatch, knn_top1: float, warns: bool
) -> None:
    measure = KnnEvaluation.measure

    def measured(self: KnnEvaluation, methods: Any, *probes: Any, raw_pixels: bool = False) -> Any:
        return measure(self, {}, raw_pixels=raw_pixels) | {name: {"knn_top1": knn_top1} for name in methods}

    monkeypatch.setattr(KnnEvaluation, "measure", measured)
    first = whole.of(CheckpointWritten)[0]
    for fields in ({}, {"attempt": 2, "resume_from": first.directory}):
        sent = Sent()
        assert Trainer(sent, changed(start, {}, tmp_path, **fields)).train() == "succeeded"
        found = [message for message in sent.of(LogWritten) if "raw pixels" in message.text]
        assert [(line.level, line.step) for line in found] == ([("warning", first.step * 3)] if warns else [])
        for line in found:
            assert line.text.startswith("kNN 25.0 % is below that of raw pixels, ")
            assert line.text.endswith("train longer (epochs), or start from pretrained weights (backbone_weights)")


def last_directory(job: Any) -> Path:
    return Path(job.of(CheckpointWritten)[-1].directory)


COLLAPSING = {
    "max_steps": 250,
    "epochs": 1000,
    "log_every_steps": 10,
    "checkpoint_every_epochs": 999,
    "checkpoint_every_steps": 160,
    # A teacher that is the student, and no norm that keeps the projections apart.
    "ema_momentum": 0.0,
    "projection_batch_norm": False,
    "optimizer": {"learning_rate": 0.3},
    "evaluation": {"knn_every_epochs": 0},
}


@pytest.fixture(scope="module")
def collapsing(start: StartTraining, tmp_path_factory: pytest.TempPathFactory) -> Sent:
    sent = Sent()
    assert Trainer(sent, changed(start, COLLAPSING, tmp_path_factory.mktemp("collapsing"))).train() == "succeeded"
    return sent


def alerts(job: Any) -> list[tuple[int, str]]:
    return [(message.step, message.reason) for message in job.of(AlertRaised)]


def test_a_collapse_is_told_within_210_steps(collapsing: Sent) -> None:
    assert alerts(collapsing) == [(210, "COLLAPSE")]
    (alert,) = collapsing.of(AlertRaised)
    assert "the projections have collapsed" in alert.message
    assert "ema_momentum" in alert.message
    scalars = {m.step: m.values for m in collapsing.of(ScalarsLogged)}
    assert scalars[200]["projection_std_ratio"] < 0.01
    assert scalars[200]["representation_std_ratio"] > 0.25, "the features show nothing of it yet"


def test_a_job_that_goes_on_from_a_checkpoint_tells_a_collapse_at_the_same_step(
    tmp_path: Path, start: StartTraining, collapsing: Sent
) -> None:
    first = collapsing.of(CheckpointWritten)[0]
    assert first.step == 160, "it has collapsed by then, and nobody has said so"
    sent = Sent()
    again = changed(start, COLLAPSING, tmp_path, attempt=2, resume_from=first.directory)
    assert Trainer(sent, again).train() == "succeeded"
    assert alerts(sent) == alerts(collapsing)
    assert [message.message for message in sent.of(AlertRaised)] == [m.message for m in collapsing.of(AlertRaised)]


def test_a_job_that_is_to_stop_at_a_collapse_fails_with_a_checkpoint(
    tmp_path: Path, start: StartTraining, collapsing: Sent
) -> None:
    sent = Sent()
    first = collapsing.of(CheckpointWritten)[0].directory
    again = changed(start, {**COLLAPSING, "on_collapse": "stop"}, tmp_path, attempt=2, resume_from=first)
    trainer = Trainer(sent, again)
    with pytest.raises(TrainingFailed, match="the projections have collapsed: since step") as failed:
        trainer.train()
    assert failed.value.reason == "COLLAPSED"
    assert "learning_rate" in failed.value.hint
    assert "on_collapse=warn" in failed.value.hint
    assert alerts(sent) == [(210, "COLLAPSE")]
    last = sent.of(CheckpointWritten)[-1]
    assert last.step == trainer.progress.step <= 211
    checkpoints.verify(Path(last.directory))


def test_a_stop_comes_through_at_the_next_step_and_leaves_a_checkpoint(tmp_path: Path, start: StartTraining) -> None:
    def stop(message: Message) -> None:
        if isinstance(message, ScalarsLogged) and message.step == 3:
            trainer.hear(StopTraining())

    sent = Sent(stop)
    job = changed(start, {"epochs": 100_000, "checkpoint_every_epochs": 99_999}, tmp_path)
    trainer = Trainer(sent, job)
    assert trainer.train() == "stopped"
    # Step 3 is reported when step 4 is done.
    assert trainer.progress.step == 4
    (written,) = sent.of(CheckpointWritten)
    assert written.step == 4


def test_a_job_that_had_ended_when_it_was_killed_has_nothing_left_to_do(
    tmp_path: Path, start: StartTraining, whole: Sent
) -> None:
    sent = Sent()
    last = whole.of(CheckpointWritten)[-1].directory
    job = changed(start, {}, tmp_path, resume_from=last, attempt=2)
    assert Trainer(sent, job).train() == "succeeded"
    assert sent.of(ScalarsLogged) == []
    assert sent.of(CheckpointWritten) == []


@pytest.mark.parametrize(("epochs", "ends_after"), [(2, 2), (50, 3)])
def test_a_full_disk_is_an_alert_while_training_and_a_failure_in_the_end_or_at_the_third_time(
    tmp_path: Path, start: StartTraining, epochs: int, ends_after: int
) -> None:
    (tmp_path / "checkpoints").write_text("a file, in which no checkpoint can be written")
    sent = Sent()
    trainer = Trainer(sent, changed(start, {"epochs": epochs}, tmp_path / "checkpoints"))
    with pytest.raises(TrainingFailed) as failed:
        trainer.train()
    assert failed.value.reason == "CHECKPOINT_FAILED"
    assert "resume the job" in failed.value.hint
    alerts = sent.of(AlertRaised)
    assert {alert.reason for alert in alerts} == {"CHECKPOINT_FAILED"}
    # A write is known to have failed a moment after it started, and one more is tried at the end.
    assert ends_after <= len(alerts) <= ends_after + 1
    assert ends_after <= trainer.progress.epoch <= ends_after + 1


def test_there_is_a_checkpoint_each_n_steps_and_each_few_minutes(tmp_path: Path, start: StartTraining) -> None:
    def steps(name: str, **settings: Any) -> list[int]:
        sent = Sent()
        job = changed(start, {"checkpoint_every_epochs": 99, "max_steps": 7, **settings}, tmp_path / name)
        Trainer(sent, job).train()
        return [message.step for message in sent.of(CheckpointWritten)]

    assert steps("steps", checkpoint_every_steps=3) == [3, 6, 7]
    assert steps("neither", checkpoint_every_minutes=0) == [7]
    assert steps("minutes", checkpoint_every_minutes=1e-9) == list(range(1, 8))


def test_an_image_that_kills_its_decoder_leaves_its_name_behind(
    tmp_path: Path, start: StartTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failpoints").mkdir()
    monkeypatch.setenv("MANYVIEW_FAILPOINTS", str(tmp_path / "failpoints"))
    image_id = int(np.frombuffer(start.blobs[0], SNAPSHOT_DTYPE)["image_id"][50])
    (tmp_path / "failpoints" / f"cache.decode@{image_id}").write_text("segv always")
    job = changed(start, {}, tmp_path / "job" / "checkpoints")

    def dies(job: StartTraining) -> tuple[bool, tuple[int, ...]]:
        with worker_harness.Worker("trainer") as worker:
            worker.send(job)
            assert worker.process.wait(40) == -signal.SIGSEGV
            notes = worker.notes.read()
        return [note.kind for note in notes] == [ALONE], tuple(note.item for note in notes)

    alone, suspects = dies(job)
    assert not alone
    assert image_id in suspects
    assert dies(changed(job, {}, Path(job.checkpoint_dir), suspects=suspects)) == (True, (image_id,))
    with worker_harness.Worker("trainer") as worker:
        others = tuple(range(200_000))  # of images that this data set does not have
        worker.send(changed(job, {}, Path(job.checkpoint_dir), quarantined=(image_id, *others), too_slow=others))
        found = worker.until(ImageUnreadable, lambda message: message.image_id == image_id)
        assert found.reason == "DECODER_CRASHED"
        assert worker.until(TrainingEnded).outcome == "succeeded"


def with_transform(start: StartTraining, name: str, directory: Path) -> StartTraining:
    """The job, each of whose views goes through a plugin's transform."""
    views = start.settings["views"]
    pipelines = [{**pipeline, "custom": {name: {"probability": 1.0}}} for pipeline in views["pipelines"]]
    return changed(start, {"views": {**views, "pipelines": pipelines}}, directory)


def test_a_plugins_transform_is_part_of_the_views_and_its_failure_names_it(
    tmp_path: Path, start: StartTraining, whole: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = POSTERIZE.replace(
        "    planes = planes", "    CALLS.append(1)\n    5 / (len(CALLS) < 4)\n    planes = planes"
    )
    plugins.install(tmp_path / "site", "posterize", POSTERIZE)
    plugins.install(tmp_path / "site", "late", late.replace("TRANSFORM =", "CALLS = []\nTRANSFORM ="))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))

    def ended(name: str) -> tuple[Any, TrainingEnded]:
        with worker_harness.Worker("trainer") as worker:
            worker.send(with_transform(start, name, tmp_path / name))
            return worker, worker.until(TrainingEnded)

    worker, end = ended("posterize")
    assert end.outcome == "succeeded"
    assert losses(worker).keys() == losses(whole).keys()
    assert losses(worker)[2] != losses(whole)[2]
    worker, end = ended("late")
    assert (end.outcome, end.reason) == ("failed", "PLUGIN_FAILED")
    assert end.message == "plugin 'late' of late_plugin 1.0 (manyview.transforms): it failed (ZeroDivisionError)"


def test_a_plugins_method_that_fails_in_a_step_ends_the_job_by_its_name(
    tmp_path: Path, start: StartTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
        from dataclasses import dataclass
        from typing import Literal

        from manyview_server.learn.methods import MethodEntry
        from manyview_server.learn.methods.contrastive.moco import MoCo, MoCoSettings
        from manyview_server.configuration import setting

        @dataclass(frozen=True, kw_only=True)
        class Settings(MoCoSettings):
            method: Literal["late"] = setting("late", "Fails in its fourth step.")

        class Late(MoCo):
            def forward_loss(self, views, image_ids, moment):
                1 / (moment.step < 3)
                return super().forward_loss(views, image_ids, moment)

        METHOD = MethodEntry(title="Late", paper="https://arxiv.org/abs/0000.00000", settings=Settings, build=Late)
        """
    plugins.install(tmp_path / "site", "late", source, group="manyview.methods", attribute="METHOD")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    with worker_harness.Worker("trainer") as worker:
        worker.send(changed(start, {"method": "late"}, tmp_path))
        end = worker.until(TrainingEnded)
    wanted = "plugin 'late' of late_plugin 1.0 (manyview.methods): a step of it failed (ZeroDivisionError)"
    assert (end.outcome, end.reason, end.message) == ("failed", "PLUGIN_FAILED", wanted)


def test_a_job_whose_plugin_is_gone_fails_before_an_image_is_decoded(tmp_path: Path, start: StartTraining) -> None:
    sent = Sent()
    with pytest.raises(PluginBroken, match=r"plugin 'gone' of no package \(manyview.transforms\): it is not installed"):
        Trainer(sent, with_transform(start, "gone", tmp_path)).train()
    assert sent.of(ImageUnreadable) == []
