"""A job computes the same bits whether all of its images are kept, a part of them or none, also after it was killed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manyview_server.messages.training import (
    AlertRaised,
    CheckpointWritten,
    ImageUnreadable,
    LogWritten,
    ScalarsLogged,
    StartTraining,
)
from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.store.jobs import checkpoints
from manyview_server.worker.evaluation.knn import is_held_out
from manyview_server.worker.job_images import decode_threads, decoded_images
from manyview_server.worker.job_images.findings import Finding
from manyview_server.worker.job_images.image_decoder import ImageDecoder
from manyview_server.worker.training import trainer
from manyview_server.worker.training.trainer import Trainer
from manyview_server.worker.training_failed import TrainingFailed
from support.learning import worker_harness
from support.learning.training import FIXED, Sent, changed, last_files, losses, scalars, trained

SIZE = 24
IMAGE_BYTES = 3 * SIZE**2
NUM_IMAGES = 90
SIDES = [(16, 16), (40, 25), (9, 60), (120, 90)]


def file(number: int) -> bytes:
    if number % 11 == 5:
        return b"\xff\xd8\xff junk %d" % number
    height, width = SIDES[number % len(SIDES)]
    side = max(height, width)
    pixels = worker_harness.picture(number % 4, number, side)[:height, :width]
    return worker_harness.encoded(pixels, "JPEG", quality=85)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> StartTraining:
    directory = tmp_path_factory.mktemp("streamed")
    images = [(file(number), number % 4) for number in range(NUM_IMAGES)]
    snapshot = worker_harness.write_dataset(directory / "dataset", images)
    settings = worker_harness.settings("moco", epochs=3, decode_size=SIZE, **FIXED)
    return worker_harness.start_training(directory, snapshot, settings)


@pytest.fixture(scope="module")
def whole(start: StartTraining) -> Sent:
    """The job with everything kept."""
    return trained(start)


@pytest.mark.parametrize("room", [NUM_IMAGES // 2, 0])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_a_job_computes_the_same_bits_with_room_for_half_of_its_images_and_with_none(
    tmp_path: Path, start: StartTraining, whole: Sent, monkeypatch: pytest.MonkeyPatch, room: int, num_threads: int
) -> None:
    def with_threads(_: int) -> Any:
        return decode_threads.DecodeThreads(num_threads)

    monkeypatch.setattr(decoded_images, "DecodeThreads", with_threads)
    streamed = trained(changed(start, {}, tmp_path, cache_bytes=room * IMAGE_BYTES))
    assert scalars(streamed) == scalars(whole)
    assert last_files(streamed) == last_files(whole)


@pytest.mark.parametrize("room", [NUM_IMAGES, 20, 0])
@pytest.mark.parametrize("epochs_done", [1, 2])
def test_a_job_that_was_killed_goes_on_with_the_same_bits_however_many_images_it_keeps_then(
    tmp_path: Path, start: StartTraining, whole: Sent, room: int, epochs_done: int
) -> None:
    half = whole.of(CheckpointWritten)[epochs_done - 1]
    again = changed(start, {}, tmp_path, cache_bytes=room * IMAGE_BYTES, attempt=2, resume_from=half.directory)
    resumed = trained(again)
    assert not resumed.of(AlertRaised)
    assert scalars(resumed) == scalars(whole, after=half.step)
    assert last_files(resumed) == last_files(whole)


def test_each_unreadable_image_is_reported_once_and_counted_in_the_log(tmp_path: Path, start: StartTraining) -> None:
    sent = trained(changed(start, {"evaluation": {**start.settings["evaluation"], "knn_every_epochs": 0}}, tmp_path))
    found = [image.image_id for image in sent.of(ImageUnreadable)]
    ids = worker_ids(start)[5::11]
    assert len(set(found)) == len(found)
    assert set(found) <= set(ids)
    lines = [line.text for line in sent.of(LogWritten) if "cannot be read" in line.text]
    assert lines[-1].startswith(f"{len(found)} images cannot be read and are left out")
    assert sorted(set(lines), key=lines.index) == lines, "no line comes twice"


def worker_ids(start: StartTraining) -> list[int]:
    return np.frombuffer(start.blobs[0], SNAPSHOT_DTYPE)["image_id"].tolist()


def test_a_data_set_of_which_nothing_can_be_read_ends_the_job(tmp_path: Path, start: StartTraining) -> None:
    snapshot = worker_harness.write_dataset(tmp_path / "junk", [(bytes([n]) * 9, n % 2) for n in range(40)])
    job = changed(start, {}, tmp_path, dataset_dir=str(tmp_path / "junk"), blobs=(snapshot.tobytes(),))
    with pytest.raises(
        TrainingFailed, match="none of the 16 images of an epoch can be read: FORMAT_NOT_ALLOWED"
    ) as failed:
        Trainer(Sent(), job).train()
    assert failed.value.reason == "DATASET_UNREADABLE"
    assert failed.value.hint
    assert "so far, 0 images of the data set could be read, and 40 could not" in str(failed.value)


def baselines(job: Sent) -> dict[str, tuple[int, float]]:
    """Return the step and the value of each baseline."""
    values = [(m.step, name, value) for m in job.of(ScalarsLogged) for name, value in m.values.items()]
    found = {name: (step, value) for step, name, value in values if name in BASELINES}
    assert len([name for _, name, _ in values if name in BASELINES]) == len(found), "each is measured once"
    return found


BASELINES = ("knn_top1_raw_pixels", "knn_top1_untrained")


def test_baselines_of_many_images_are_measured_at_the_first_evaluation_with_the_same_values(
    tmp_path: Path, start: StartTraining, whole: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "MAX_FIRST_IMAGES", 20)
    evaluation = {**start.settings["evaluation"], "knn_every_epochs": 2}
    late = trained(changed(start, {"evaluation": evaluation}, tmp_path / "late"))
    one, two, _ = late.of(CheckpointWritten)
    assert {name: value for name, (_, value) in baselines(late).items()} == {
        name: value for name, (_, value) in baselines(whole).items()
    }
    assert {step for step, _ in baselines(whole).values()} == {0}
    assert {step for step, _ in baselines(late).values()} == {two.step}
    assert last_files(late) == last_files(whole)
    for number, (written, expected) in enumerate(((one, baselines(late)), (two, {}))):
        values, place = {"evaluation": evaluation}, tmp_path / str(number)
        assert baselines(trained(changed(start, values, place, attempt=2, resume_from=written.directory))) == expected


def test_a_late_first_evaluation_decodes_the_held_out_images_once(
    tmp_path: Path, start: StartTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: Counter[int] = Counter()
    decode = ImageDecoder.decode

    def counted(self: ImageDecoder, row: int, *rest: Any) -> Finding:
        decoded[row] += 1
        return decode(self, row, *rest)

    monkeypatch.setattr(ImageDecoder, "decode", counted)
    monkeypatch.setattr(trainer, "MAX_FIRST_IMAGES", 20)
    evaluation = {**start.settings["evaluation"], "knn_every_epochs": 2}
    sent = trained(changed(start, {"evaluation": evaluation}, tmp_path, cache_bytes=0))
    assert {step for step, _ in baselines(sent).values()} == {sent.of(CheckpointWritten)[1].step}
    ids = torch.tensor(worker_ids(start))
    readable = [row for row in range(NUM_IMAGES) if row % 11 != 5]
    held_out = [row for row in readable if is_held_out(ids, evaluation["knn_holdout_fraction"])[row]]
    assert len(held_out) > 5
    assert {decoded[row] for row in held_out} == {2}, "at the ends of the second and of the last epoch"


def test_a_checkpoint_of_a_release_that_left_unreadable_images_out_goes_on_and_says_that_it_is_not_exact(
    tmp_path: Path, start: StartTraining, whole: Sent
) -> None:
    half = Path(whole.of(CheckpointWritten)[0].directory)
    state = checkpoints.read_state(half)
    older = {name: value for name, value in state.items() if name != "owes_baselines"}
    older["num_images"] -= 4
    copy = tmp_path / half.name
    rewritten(half, copy, older)
    sent = trained(changed(start, {}, tmp_path / "again", attempt=2, resume_from=str(copy)))
    (alert,) = sent.of(AlertRaised)
    assert alert.reason == "RESUME_NOT_EXACT"
    assert f"num_images is {state['num_images']}, but was {older['num_images']}" in alert.message
    assert max(losses(sent)) == max(losses(whole))


def rewritten(source: Path, target: Path, state: dict[str, Any]) -> None:
    """Copy a checkpoint with another `state.json`."""
    files = {name: (source / name).read_bytes() for name in (checkpoints.BACKBONE, checkpoints.STATE)}
    checkpoints.write(target, {**files, checkpoints.STATE_JSON: json.dumps(state).encode()})
