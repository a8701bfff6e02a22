"""The way through: images in, a model that learns while somebody watches, embeddings and weights out."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import resnet18

import manyview
from manyview_server.learn import methods
from support.service.harness import SMALL_JOB, ServerProcess, wait_until, write_photos

METHODS = ("moco", "simclr")
EACH_STEP = {
    "loss",
    "learning_rate",
    "representation_std",
    "representation_std_ratio",
    "projection_std",
    "projection_std_ratio",
    "effective_rank",
    "alignment",
    "uniformity",
    "images_per_second",
    "data_wait_fraction",
    "step_ms",
    "bank_fill",
    "memory_bytes",
}
EVALUATIONS = {"knn_top1", "knn_top1_k20_t0.07", "knn_top1_raw_pixels", "knn_top1_untrained", "linear_top1"}
ENDLESS = SMALL_JOB | {"epochs": 100_000, "checkpoint_every_epochs": 1, "evaluation": {"knn_every_epochs": 0}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos")
    write_photos(path, 96, seed=7)
    return path


@pytest.fixture(scope="module")
def dataset(client: manyview.Client, folder: Path) -> manyview.Dataset:
    return client.upload(folder, dataset="main-flow")


@pytest.fixture(scope="module")
def jobs(client: manyview.Client, dataset: manyview.Dataset) -> dict[str, manyview.Job]:
    """A job of each method, both done."""
    started = {method: client.train(dataset, method, epochs=4, config=SMALL_JOB) for method in METHODS}
    for job in started.values():
        job.wait(timeout_s=50)
    return started


@pytest.fixture
def running(client: manyview.Client, dataset: manyview.Dataset) -> Iterator[manyview.Job]:
    """A job that trains until it is cancelled."""
    job = client.train(dataset, "moco", config=ENDLESS)
    yield job
    if not job.refresh().is_terminal:
        job.cancel()
        with pytest.raises(manyview.TrainJobCancelled):
            job.wait(timeout_s=30)


def test_a_folder_arrives_whole_with_its_labels(dataset: manyview.Dataset, client: manyview.Client) -> None:
    assert dataset.upload is not None
    assert (dataset.upload.num_sent, dataset.upload.num_stored, dataset.upload.num_rejected) == (96, 96, 0)
    assert (dataset.num_images, dataset.num_labels, dataset.num_labelled) == (96, 4, 96)
    stored = list(client.images(dataset))
    assert {image.label for image in stored} == {"class0", "class1", "class2", "class3"}
    assert {(image.width, image.height, image.status) for image in stored} == {(24, 24, "STORED")}


@pytest.mark.parametrize("method", METHODS)
def test_the_log_of_a_job_holds_every_scalar_that_is_promised_and_no_gap(
    jobs: dict[str, manyview.Job], method: str
) -> None:
    job = jobs[method]
    info = job.info
    events = list(job.metrics())
    assert [event.sequence for event in events] == list(range(1, info.last_sequence + 1))
    states = [event["to"] for event in events if event.kind == "state"]
    assert states == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    scalars = [event for event in events if event.kind == "scalars"]
    steps = [event for event in scalars if "gradient_norm" in event]
    assert [event.step for event in steps] == list(range(1, info.progress.num_steps + 1))
    for event in steps:
        # The first step finds an empty bank, so its loss says nothing.
        assert set(event.values) >= EACH_STEP - ({"loss"} if event.step == 1 else set())
    assert "loss" not in steps[0]
    found = {name: value for event in scalars for name, value in event.values.items()}
    assert set(found) >= EVALUATIONS
    assert all(math.isfinite(value) for event in scalars for value in event.values.values())
    for name in (*EVALUATIONS, "bank_fill", "data_wait_fraction"):
        assert 0 <= found[name] <= 1
    assert found["bank_fill"] == 1, "32 keys, 16 a step"
    assert found["knn_top1_raw_pixels"] > 0.5, "the classes differ in color"
    saved = [event["name"] for event in events if event.kind == "checkpoint"]
    assert saved == [model.name for model in reversed(job.checkpoints())]
    assert info.latest_checkpoint == saved[-1]
    assert list(job.metrics(after=info.last_sequence - 3)) == events[-3:]
    assert [event.kind for event in job.metrics(kinds=["state"])] == ["state"] * 4


def test_the_history_is_the_table_and_thins_out_without_making_values_up(jobs: dict[str, manyview.Job]) -> None:
    job = jobs["moco"]
    num_steps = job.info.progress.num_steps
    whole = job.history(["loss"])
    assert whole["step"].tolist() == list(range(2, num_steps + 1)), "the first step finds an empty bank"
    assert np.isfinite(whole["loss"]).all()
    few = job.history(["loss"], max_rows=5)
    assert 3 <= len(few) <= 6
    assert (few.rows[0], few.rows[-1]) == (whole.rows[0], whole.rows[-1])
    assert all(row in whole.rows for row in few.rows)
    assert set(job.history().names) >= EACH_STEP | EVALUATIONS


def test_the_configuration_of_a_job_is_whole(jobs: dict[str, manyview.Job], client: manyview.Client) -> None:
    schemas = {method.name: method.config_schema for method in client.methods().methods}
    assert set(schemas) >= set(methods.METHODS)
    for name, job in jobs.items():
        config = job.info.config
        assert set(config) == set(schemas[name]["properties"])
        assert (config["method"], config["backbone"], config["epochs"]) == (name, "resnet9", 4)
        assert (config["stem"], config["precision"]) == ("small", "float32"), "the job reports what was left open"
        assert config["views"]["pipelines"][0]["crop"]["ratio_max"] == pytest.approx(4 / 3)


def test_the_log_lines_of_a_job_can_be_read_and_followed_to_its_end(jobs: dict[str, manyview.Job]) -> None:
    lines = list(jobs["simclr"].logs())
    assert any("images to train on" in line.text for line in lines)
    assert list(jobs["simclr"].logs(follow=True)) == lines
    assert list(jobs["simclr"].logs(1)) == lines[-1:]


def test_embeddings_come_in_the_order_of_the_images_and_name_their_checkpoint(
    client: manyview.Client, jobs: dict[str, manyview.Job], folder: Path
) -> None:
    job, paths = jobs["moco"], sorted(folder.rglob("*.jpg"))
    found = client.embed(folder, model=job)
    model = client.model(job)
    assert found.array.shape == (96, model.feature_dim)
    assert found.array.dtype == np.float32
    assert found.checkpoint == job.info.latest_checkpoint == model.name
    assert list(found.keys) == [path.relative_to(folder).as_posix() for path in paths]
    backwards = client.embed(list(reversed(paths)), model=job, batch_size=10)
    np.testing.assert_allclose(backwards.array[::-1], found.array, atol=1e-5)
    assert not np.allclose(found.array[0], found.array[1], atol=1e-3)
    first = job.checkpoints()[-1]
    older = client.embed(paths[:8], model=first)
    assert older.checkpoint == first.name != found.checkpoint
    assert not np.allclose(older.array, found.array[:8], atol=1e-4)


def test_embeddings_take_the_form_that_is_asked_for(
    client: manyview.Client, jobs: dict[str, manyview.Job], folder: Path
) -> None:
    job, paths = jobs["simclr"], sorted(folder.rglob("*.jpg"))[:12]
    plain = client.embed(paths, model=job).array
    half = client.embed(paths, model=job, dtype="float16").array
    assert half.dtype == np.float16
    np.testing.assert_allclose(half.astype(np.float32), plain, rtol=2e-3, atol=1e-3)
    unit = client.embed(paths, model=job, l2_normalize=True).array
    np.testing.assert_allclose(unit, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-5)
    projected = client.embed(paths, model=job, output="projection").array
    assert projected.shape == (12, client.model(job).projection_dim) == (12, 128)
    untrained = client.embed(paths, model="backbones/resnet9")
    assert untrained.checkpoint == "backbones/resnet9"
    assert untrained.array.shape == (12, client.model("backbones/resnet9").feature_dim)
    assert np.isfinite(untrained.array).all()


def test_callers_at_once_get_the_rows_that_each_would_get_alone(
    client: manyview.Client, jobs: dict[str, manyview.Job], folder: Path
) -> None:
    paths = sorted(folder.rglob("*.jpg"))
    alone = client.embed(paths, model=jobs["moco"]).array

    def embed(start: int) -> np.ndarray:
        return client.embed(paths[start:] + paths[:start], model=jobs["moco"], batch_size=7).array

    starts = range(0, 96, 16)
    with ThreadPoolExecutor(len(starts)) as callers:
        for start, rows in zip(starts, callers.map(embed, starts), strict=True):
            np.testing.assert_allclose(np.roll(rows, start, axis=0), alone, atol=1e-5)


def test_a_job_is_watched_embedded_with_and_cancelled_while_the_next_one_waits(
    client: manyview.Client, dataset: manyview.Dataset, folder: Path, running: manyview.Job
) -> None:
    waiting = client.train(dataset, "simclr", epochs=1, config=SMALL_JOB)
    seen: list[int] = []
    for event in running.metrics():
        seen.append(event.sequence)
        if event.kind == "checkpoint" and len(seen) > 20:
            break
    assert seen == list(range(1, seen[-1] + 1)), "live, and contiguous from the beginning"
    assert running.refresh().state == "RUNNING"
    assert running.info.progress.step > 0
    assert running.info.progress.eta_s > 0
    assert waiting.refresh().state == "QUEUED"
    impatient = client.train(dataset, config=ENDLESS)
    assert impatient.info.queue_position == 1
    assert impatient.cancel().state == "CANCELLED", "at once"
    assert [event["to"] for event in impatient.metrics(kinds=["state"])] == ["QUEUED", "CANCELLED"]
    found = client.embed(folder, model=running)
    assert found.checkpoint.startswith(f"{running.name}/checkpoints/")
    assert np.isfinite(found.array).all()
    assert client.model(found.checkpoint).step > 0, "what an answer named is kept"
    assert running.refresh().state == "RUNNING"
    assert running.cancel().state in ("CANCELLING", "CANCELLED")
    with pytest.raises(manyview.TrainJobCancelled):
        running.wait(timeout_s=30)
    assert running.info.progress.eta_s == 0
    assert running.info.latest_checkpoint == f"{running.name}/checkpoints/{running.info.progress.step}"
    assert waiting.wait(timeout_s=40).state == "SUCCEEDED"
    waited = [event["to"] for event in waiting.metrics(kinds=["state"])]
    assert waited == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]


def test_an_export_is_the_network_that_embeds_and_loads_into_torchvision(
    client: manyview.Client, dataset: manyview.Dataset, folder: Path, tmp_path: Path
) -> None:
    config = SMALL_JOB | {
        "backbone_width": 1.0,
        "image_size": 64,
        "max_steps": 2,
        "memory_bank_size": 0,
        "evaluation": {"knn_every_epochs": 0},
    }
    job = client.train(dataset, "simclr", config=config | {"backbone": "resnet18"}, epochs=1)
    assert job.wait(timeout_s=50).progress.step == 2
    exported = load_file(job.export(tmp_path / "backbone.safetensors"))
    network = resnet18(weights=None)
    problems = network.load_state_dict(exported, strict=False)
    assert not problems.unexpected_keys
    assert problems.missing_keys == ["fc.weight", "fc.bias"]
    network.fc = torch.nn.Identity()
    network.eval()
    pixels = np.random.default_rng(3).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    normalize = job.info.config["views"]["normalize"]
    images = (torch.from_numpy(pixels) / 255 - torch.tensor(normalize["mean"])) / torch.tensor(normalize["std"])
    with torch.inference_mode():
        expected = network(images.permute(0, 3, 1, 2)).numpy()
    found = client.embed(pixels, model=job).array
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_learned_embedding_is_as_wide_as_was_asked_for_and_lies_behind_the_exported_backbone(
    client: manyview.Client, dataset: manyview.Dataset, folder: Path, tmp_path: Path
) -> None:
    job = client.train(dataset, "simclr", epochs=1, config=SMALL_JOB | {"embedding_dim": 5})
    job.wait(timeout_s=50)
    found = client.embed(sorted(folder.rglob("*.jpg"))[:6], model=job)
    assert found.array.shape == (6, 5)
    assert np.isfinite(found.array).all()
    assert client.model(job).feature_dim == 5
    projected = client.embed(sorted(folder.rglob("*.jpg"))[:6], model=job, output="projection")
    assert projected.array.shape == (6, 128)
    exported = load_file(job.export(tmp_path / "backbone.safetensors"))
    assert not [name for name in exported if "reduction" in name]
    assert len(exported) > 10


def test_a_server_that_is_told_to_stop_drains_and_its_subscriber_goes_on_after_the_restart(
    server: ServerProcess, client: manyview.Client, dataset: manyview.Dataset
) -> None:
    events: list[manyview.Event] = []
    job = client.train(dataset, "moco", config=ENDLESS)

    def subscribe() -> None:
        with server.client() as own:
            for event in own.job(job.id).metrics():
                events.append(event)

    subscriber = threading.Thread(target=subscribe)
    subscriber.start()
    wait_until(lambda: any(event.kind == "scalars" for event in events), "the job trains", 40)
    assert server.stop() == 0
    assert server.is_gone(), "the trainer is gone as well"
    assert subscriber.is_alive(), "a drain is no end"
    before = len(events)
    server.start()
    wait_until(lambda: any(event.kind == "scalars" for event in events[before:]), "the job continues", 40)
    job.cancel()
    subscriber.join(30)
    assert not subscriber.is_alive()
    info = job.refresh()
    assert [event.sequence for event in events] == list(range(1, info.last_sequence + 1))
    assert (info.state, info.attempt) == ("CANCELLED", 2)
    rollback = next(event for event in events if event.kind == "rollback")
    stopped_at = max(event.step for event in events[: events.index(rollback)] if event.kind == "scalars")
    assert rollback["to_step"] == stopped_at, "a drain writes a checkpoint first: no step is lost"
