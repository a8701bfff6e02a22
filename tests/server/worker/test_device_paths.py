"""A worker runs on a pretended GPU: see `pretend_device`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from manyview_server.messages.embedding import ModelKey
from manyview_server.messages.message import Message
from manyview_server.messages.selection import FindNearest, FitPca, GroupDuplicates, RowSource, SelectRows
from manyview_server.messages.training import (
    AlertRaised,
    CheckpointWritten,
    ScalarsLogged,
    StartTraining,
    TrainingStarted,
)
from manyview_server.store.embeddings.tables import EmbeddingTable, Segment
from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.store.images.snapshots import SnapshotRows
from manyview_server.store.jobs import checkpoints
from manyview_server.worker.embedding.model_cache import load
from manyview_server.worker.selecting import selector
from manyview_server.worker.training.trainer import Trainer
from support.learning import worker_harness
from support.learning.pretend_device import DEVICE, pretending
from support.learning.training import FIXED, Sent, changed, losses

MAY_WAIT = {
    *("preparation.py", "probe.py"),  # before the first step
    *("preprocess.py", "knn.py", "checkpoint_state.py"),  # between steps
}
N, D = 200, 8


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> StartTraining:
    directory = tmp_path_factory.mktemp("job")
    snapshot = worker_harness.write_dataset(directory / "dataset", worker_harness.digits(90))
    settings = worker_harness.settings("moco", epochs=2, **FIXED)
    return worker_harness.start_training(directory, snapshot, settings)


@pytest.fixture(scope="module")
def on_cpu(start: StartTraining) -> Sent:
    return trained(start)


def trained(start: StartTraining) -> Sent:
    sent = Sent()
    assert Trainer(sent, start).train() == "succeeded"
    return sent


def tensors(written: CheckpointWritten) -> dict[str, torch.Tensor]:
    directory = Path(written.directory)
    return load_file(directory / checkpoints.BACKBONE) | load_file(directory / checkpoints.STATE)


@pytest.mark.parametrize("place", [pytest.param("device", marks=pytest.mark.long), "memory"])
def test_a_job_on_a_gpu_waits_for_it_in_no_step_and_computes_what_the_cpu_does(
    place: str, start: StartTraining, on_cpu: Sent, tmp_path: Path
) -> None:
    with pretending() as device:
        cache_bytes = start.cache_bytes if place == "device" else 0
        sent = trained(changed(start, {}, tmp_path, device=str(DEVICE), cache_bytes=cache_bytes))
    files = Counter(where.partition(" at ")[2].partition(":")[0] for where in device.waits)
    assert set(files) <= MAY_WAIT, files
    assert losses(sent) == pytest.approx(losses(on_cpu), rel=1e-4)
    values = {name: m.values[name] for m in sent.of(ScalarsLogged) for name in m.values}
    assert {"effective_rank", "alignment", "uniformity", "knn_top1", "linear_top1", "bank_fill"} <= set(values)
    first, last = zip(sent.of(CheckpointWritten), on_cpu.of(CheckpointWritten), strict=True)
    for name, expected in tensors(first[1]).items():
        torch.testing.assert_close(tensors(first[0])[name], expected, rtol=1e-3, atol=1e-4, msg=name)
    # A device adds in another order. In the second epoch such a difference can decide the sign before a ReLU.
    for name, expected in tensors(last[1]).items():
        difference = tensors(last[0])[name].double() - expected.double()
        assert difference.norm() <= 0.05 * expected.double().norm() + 1e-4, name


def test_a_job_goes_on_from_a_gpus_checkpoint_on_the_cpu_and_the_other_way_round(
    start: StartTraining, on_cpu: Sent, tmp_path: Path
) -> None:
    half = on_cpu.of(CheckpointWritten)[0]
    with pretending():
        resumed = trained(changed(start, {}, tmp_path / "a", device=str(DEVICE), resume_from=half.directory, attempt=2))
        written = trained(changed(start, {}, tmp_path / "b", device=str(DEVICE))).of(CheckpointWritten)[0]
    back = trained(changed(start, {}, tmp_path / "c", resume_from=written.directory, attempt=2))
    for sent in (resumed, back):
        assert sent.of(TrainingStarted)[0].step == half.step
        assert not sent.of(AlertRaised)
        expected = {step: loss for step, loss in losses(on_cpu).items() if step > half.step}
        assert losses(sent) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("output", ["backbone", "projection"])
def test_a_model_embeds_on_a_gpu_what_it_embeds_on_the_cpu(output: str, on_cpu: Sent) -> None:
    directory = on_cpu.of(CheckpointWritten)[-1].directory
    key = ModelKey(name="", checkpoint_dir=directory, backbone="", weights_file="", output=output)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), np.uint8))
    expected = load(key, torch.device("cpu")).embed(images)
    with pretending() as device:
        model = load(key, DEVICE)
        device.waits.clear()
        found = model.embed(images)
    assert [where.partition(":")[0] for where in device.waits] == ["_to_copy at model_cache.py"]  # for the result
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def blob(*numbers: int) -> bytes:
    return np.array(numbers, "<i8").tobytes()


def select(source: RowSource, strategy: str, *, balance: str = "", vectors: bytes = b"") -> SelectRows:
    stored = np.zeros(N, SNAPSHOT_DTYPE)
    stored["label"] = np.arange(N) % 3
    classes = (blob(2, 2, 2), *SnapshotRows.of(stored).blobs) if balance else (blob(),)
    return SelectRows(
        source=source,
        strategy=strategy,
        count=6,
        seed=1,
        distance=0.5,
        num_neighbors=4,
        balance=balance,
        blobs=(blob(3), blob(3, 7), b"", vectors, *classes),
    )


def requests(directory: Path, device: str) -> dict[str, Message]:
    vectors = np.random.default_rng(1).normal(size=(2, D)).astype("<f4").tobytes()
    source = RowSource(directory=str(directory), num_rows=N, num_features=D, unit=True, device=device, num_threads=1)
    strategies = ("random", "coreset", "minimum_distance", "typicality", "similarity")
    given: dict[str, Any] = {
        name: select(source, name, vectors=vectors if name == "similarity" else b"") for name in strategies
    }
    return {
        **given,
        "balanced coreset": select(source, "coreset", balance="equal"),
        "balanced random": select(source, "random", balance="given"),
        "balanced typicality": select(source, "typicality", balance="proportional"),
        "neighbors of vectors": FindNearest(source=source, num_neighbors=3, blobs=(b"", vectors)),
        "neighbors of rows": FindNearest(source=source, num_neighbors=3, blobs=(blob(5, 9), b"")),
        "duplicates": GroupDuplicates(source=source, max_distance=0.2),
        "pca": FitPca(source=source, num_components=3, variance_fraction=0.0, whiten=True),
    }


def test_the_selector_answers_on_a_gpu_as_it_does_on_the_cpu(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
    rows[50], rows[3, 0] = rows[20], np.nan
    rows[3] = np.nan
    rows[4] = rows[5] + 0.01
    EmbeddingTable(tmp_path).write(Segment(first=0, rows=rows, errors=()), np.arange(N))
    expected = {name: selector.answer(request) for name, request in requests(tmp_path, "cpu").items()}
    with pretending():
        found = {name: selector.answer(request) for name, request in requests(tmp_path, str(DEVICE)).items()}
    assert {name: type(answer).__name__ for name, answer in found.items() if "Failed" in type(answer).__name__} == {}
    assert found == expected
