from __future__ import annotations

import dataclasses
import json
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from manyview_server.learn import methods, optimizers
from manyview_server.learn.methods import Method, build_method
from manyview_server.messages.embedding import (
    CancelEmbed,
    EmbedDone,
    EmbedFailed,
    EmbedImages,
    EmbedRecipe,
    ModelKey,
    SetThreads,
    StartEmbedding,
)
from manyview_server.messages.message import Message
from manyview_server.store.jobs import checkpoints
from manyview_server.store.jobs.model_card import ModelCard
from manyview_server.worker import checkpoint_state
from manyview_server.worker.channel import EXIT_ORPHANED
from manyview_server.worker.embedding.embedder import CPU_MAX_BATCH, Embedder
from manyview_server.worker.embedding.model_cache import EmbeddingModel
from manyview_server.worker.preprocess import Preprocess
from support.learning import worker_harness

SLOW = [worker_harness.encoded(np.zeros((1500, 1500, 3), np.uint8))]
"""A small file that takes milliseconds to decode: many of them take longer than what a test does meanwhile."""


@pytest.fixture(scope="module")
def method() -> Method:
    return build_method(methods.from_json(worker_harness.settings("simclr")), 64)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, method: Method) -> str:
    """A checkpoint of `method`, as a trainer writes it."""
    values = worker_harness.settings("simclr")
    settings = methods.from_json(values)
    card = ModelCard(
        train_job="job",
        step=1,
        epoch=1,
        method="simclr",
        backbone=settings.backbone,
        backbone_width=settings.backbone_width,
        stem="small",
        stem_relu=True,
        patch_size=None,
        embedding_dim=0,
        transparency="white",
        color_profile="srgb",
        feature_dim=method.encoder.backbone.feature_dim,
        projection_dim=method.projection_dim,
        image_size=16,
        mean=settings.views.normalize.mean,
        std=settings.views.normalize.std,
    )
    numerics = {"precision": "float32", "channels_last": True}
    run = {"settings": values, "numerics": numerics, "num_images": 64, "step": 1, "model": card.to_json()}
    directory = tmp_path_factory.mktemp("checkpoints") / checkpoints.name(1, 1)
    tensors = checkpoint_state.capture(method, optimizers.build(settings.optimizer, method, 16))
    checkpoint_state.write(directory, tensors, json.dumps(run).encode())
    return str(directory)


@pytest.fixture(scope="module")
def worker() -> Iterator[Any]:
    with worker_harness.Worker("embedder") as started:
        started.send(StartEmbedding(device="cpu", num_threads=1))
        yield started
        assert started.close() == EXIT_ORPHANED


@pytest.fixture
def embed(worker: Any, checkpoint: str) -> Any:
    """Sends a request and gives the answer to it."""

    def send(number: int, blobs: list[bytes], **changes: Any) -> Message:
        worker.send(request(number, blobs, checkpoint, **changes))
        return answer(worker, number)

    return send


def request(number: int, blobs: list[bytes], checkpoint: str, **changes: Any) -> EmbedImages:
    """Return a request; `changes` are fields of the message, of its recipe or of its model."""
    model = ModelKey(name="m", checkpoint_dir=checkpoint, backbone="", weights_file="", output="backbone")
    recipe = EmbedRecipe(model=changed(model, changes))
    fields: dict[str, Any] = {"request_id": number, "recipe": changed(recipe, changes), "time_left_s": 0.0}
    return EmbedImages(**{**fields, **changes}, blobs=tuple(blobs))


def changed(instance: Any, changes: dict[str, Any]) -> Any:
    """Return the dataclass with its fields in `changes`, which are removed from there."""
    names = {field.name for field in dataclasses.fields(instance)} & changes.keys()
    return dataclasses.replace(instance, **{name: changes.pop(name) for name in names})


def answer(worker: Any, number: int) -> Any:
    return worker.until(Message, lambda message: getattr(message, "request_id", None) == number)


def rows(done: EmbedDone, dtype: str = "<f4") -> np.ndarray:
    return np.frombuffer(done.blobs[0], dtype).reshape(done.shape)


@pytest.fixture(scope="module")
def pixels() -> list[np.ndarray]:
    return [worker_harness.picture(number % 4, number) for number in range(40)]


@pytest.fixture(scope="module")
def blobs(pixels: list[np.ndarray]) -> list[bytes]:
    return [worker_harness.encoded(image) for image in pixels]


def expected(method: Method, pixels: list[np.ndarray], feature: Any = "backbone") -> np.ndarray:
    settings = methods.resolve("simclr", {}).views.normalize
    preprocess = Preprocess(16, settings.mean, settings.std, torch.device("cpu"), torch.float32)
    return method.embed(preprocess(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)), feature).numpy()


def test_rows_are_the_networks_features_in_the_order_of_the_images(
    embed: Any, method: Method, blobs: list[bytes], pixels: list[np.ndarray]
) -> None:
    done = embed(1, blobs)
    assert done.errors == ()
    np.testing.assert_allclose(rows(done), expected(method, pixels), rtol=1e-4, atol=1e-5)
    assert 1 <= done.batch_images <= CPU_MAX_BATCH
    assert min(done.queue_ms, done.decode_ms, done.forward_ms) >= 0


def test_transparent_images_are_embedded_on_the_background_of_the_model(
    embed: Any, method: Method, pixels: list[np.ndarray]
) -> None:
    alpha = np.zeros((16, 16, 1), np.uint8)
    alpha[4:12] = 255
    done = embed(21, [worker_harness.encoded(np.dstack([pixels[0], alpha]))])
    seen = np.where(alpha == 255, pixels[0], 255).astype(np.uint8)
    np.testing.assert_allclose(rows(done), expected(method, [seen]), rtol=1e-4, atol=1e-5)


def test_the_projection_is_what_the_head_makes_of_the_features(
    embed: Any, method: Method, blobs: list[bytes], pixels: list[np.ndarray]
) -> None:
    done = embed(2, blobs[:5], output="projection")
    np.testing.assert_allclose(rows(done), expected(method, pixels[:5], "projection"), rtol=1e-4, atol=1e-4)


def test_half_precision_and_unit_length_on_request(
    embed: Any, method: Method, blobs: list[bytes], pixels: list[np.ndarray]
) -> None:
    done = embed(3, blobs[:5], l2_normalize=True, data_type="float16")
    want = expected(method, pixels[:5])
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    np.testing.assert_allclose(rows(done, "<f2"), want, atol=2e-3)


def test_a_bad_image_costs_its_own_row_only(
    embed: Any, method: Method, blobs: list[bytes], pixels: list[np.ndarray]
) -> None:
    done = embed(4, [blobs[0], b"junk", blobs[1][:-30], blobs[2]], l2_normalize=False)
    assert [(error.row, error.reason) for error in done.errors] == [(1, "FORMAT_NOT_ALLOWED"), (2, "DECODE_FAILED")]
    assert np.isnan(rows(done)[[1, 2]]).all()
    np.testing.assert_allclose(rows(done)[[0, 3]], expected(method, [pixels[0], pixels[2]]), rtol=1e-4, atol=1e-5)


def test_of_bad_images_alone_comes_an_answer_of_the_right_shape(embed: Any, method: Method) -> None:
    done = embed(5, [b"x", b"y"])
    assert done.shape == (2, method.encoder.backbone.feature_dim)
    assert np.isnan(rows(done)).all()


def test_a_request_whose_time_is_over_is_told_so(embed: Any, blobs: list[bytes]) -> None:
    failed = embed(6, blobs, time_left_s=1e-9)
    assert isinstance(failed, EmbedFailed)
    assert failed.code == "DEADLINE_EXCEEDED"


def test_a_cancelled_request_is_confirmed_and_those_after_it_are_answered(
    worker: Any, checkpoint: str, blobs: list[bytes]
) -> None:
    worker.send(request(7, SLOW * 40, checkpoint))
    worker.send(CancelEmbed(request_id=7))
    worker.send(request(8, blobs[:2], checkpoint))
    worker.send(request(9, blobs[:2], checkpoint))
    answer(worker, 9)
    (gone,) = [message for message in worker.of(EmbedFailed) if message.request_id == 7]
    assert gone.reason == "CANCELLED"
    assert 7 not in {message.request_id for message in worker.of(EmbedDone)}


def test_an_image_that_took_too_long_costs_its_row_and_is_not_decoded(embed: Any, blobs: list[bytes]) -> None:
    done = embed(13, [blobs[0], b"not even looked at", blobs[1]], too_slow=(1,))
    assert [(error.row, error.reason) for error in done.errors] == [(1, "DECODE_TOO_SLOW")]


def test_a_missing_checkpoint_fails_the_request_and_nothing_else(
    embed: Any, blobs: list[bytes], tmp_path: Path
) -> None:
    failed = embed(10, blobs[:2], checkpoint_dir=str(tmp_path / checkpoints.name(1, 1)))
    assert (failed.code, failed.reason) == ("NOT_FOUND", "CHECKPOINT_GONE")
    assert isinstance(embed(11, blobs[:2]), EmbedDone)


def test_no_images_are_refused(embed: Any) -> None:
    assert embed(12, []).reason == "NO_IMAGES"


def test_a_plain_backbone_embeds_and_other_numbers_of_threads_change_nothing(
    worker: Any, embed: Any, blobs: list[bytes]
) -> None:
    one = embed(13, blobs[:3], checkpoint_dir="", backbone="resnet9")
    worker.send(SetThreads(num_threads=2))
    two = embed(14, blobs[:3], checkpoint_dir="", backbone="resnet9")
    assert one.shape == (3, 512)
    np.testing.assert_allclose(rows(one), rows(two), rtol=1e-4, atol=1e-5)


def test_stored_images_are_read_from_their_shards_and_each_bad_one_costs_its_own_row(
    embed: Any, method: Method, pixels: list[np.ndarray], tmp_path: Path
) -> None:
    files = [(worker_harness.encoded(image), 0) for image in pixels[:6]]
    files[2] = (b"junk", 0)
    snapshot = worker_harness.write_dataset(tmp_path / "stored", files)
    snapshot["offset"][3] += 512
    snapshot["shard"][4] = 7
    quarantined = int(snapshot["image_id"][5])
    done = embed(
        15,
        [snapshot[:3].tobytes(), snapshot[3:].tobytes()],
        dataset_dir=str(tmp_path / "stored"),
        quarantined=(quarantined,),
    )
    assert [(error.row, error.reason) for error in done.errors] == [
        (2, "FORMAT_NOT_ALLOWED"),
        (3, "CHECKSUM_MISMATCH"),
        (4, "IMAGE_LOST"),
        (5, "DECODER_CRASHED"),
    ]
    np.testing.assert_allclose(rows(done)[:2], expected(method, pixels[:2]), rtol=1e-4, atol=1e-5)
    assert np.isnan(rows(done)[2:]).all()


def test_a_data_set_that_is_gone_is_rows_without_images_and_no_crash(embed: Any, tmp_path: Path) -> None:
    snapshot = worker_harness.write_dataset(tmp_path / "stored", worker_harness.digits(2))
    done = embed(16, [snapshot.tobytes()], dataset_dir=str(tmp_path / "elsewhere"))
    assert [error.reason for error in done.errors] == ["IMAGE_LOST"] * 2
    assert embed(17, [b""], dataset_dir=str(tmp_path / "stored")).reason == "NO_IMAGES"


@pytest.mark.parametrize("most", [3, 0])
def test_a_batch_that_finds_no_memory_is_halved_down_to_one_image(
    checkpoint: str,
    blobs: list[bytes],
    method: Method,
    pixels: list[np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    most: int,
) -> None:
    whole = EmbeddingModel.embed
    tried = []

    def embed(self: EmbeddingModel, images: torch.Tensor) -> torch.Tensor:
        tried.append(len(images))
        if len(images) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")
        return whole(self, images)

    monkeypatch.setattr(EmbeddingModel, "embed", embed)
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    embedder = Embedder(cast(Any, SimpleNamespace(send=answers.put)), torch.device("cpu"), num_threads=1)
    embedder.start()
    embedder.handle(request(1, blobs, checkpoint))
    reply = answers.get(timeout=60)
    assert max(tried) > 3
    if most:
        np.testing.assert_allclose(rows(reply), expected(method, pixels), rtol=1e-4, atol=1e-5)
    else:
        assert (reply.code, reply.reason) == ("RESOURCE_EXHAUSTED", "DEVICE_OUT_OF_MEMORY")
        assert "16 pixels" in reply.message


def test_it_has_as_many_threads_as_it_was_ever_told_and_not_one_for_each_core_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[str] = []
    monkeypatch.setattr(Embedder, "_spawn", lambda self, name, *_, **__: started.append(name))
    embedder = Embedder(cast(Any, SimpleNamespace(send=None)), torch.device("cpu"), num_threads=2)
    embedder.start()
    assert started == ["embed-0", "embed-1"]
    for num_threads in (1, 4, 2, 0):
        embedder.handle(SetThreads(num_threads=num_threads))
    assert started == ["embed-0", "embed-1", "embed-2", "embed-3"]


def test_a_single_image_is_embedded_with_several_cores_and_batches_with_one_core_for_each_thread(
    checkpoint: str,
    blobs: list[bytes],
    method: Method,
    pixels: list[np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = EmbeddingModel.embed
    cores: dict[str, set[int]] = {}

    def embed(self: EmbeddingModel, images: torch.Tensor) -> torch.Tensor:
        cores.setdefault(threading.current_thread().name, set()).add(torch.get_num_threads())
        return whole(self, images)

    monkeypatch.setattr(EmbeddingModel, "embed", embed)
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    embedder = Embedder(cast(Any, SimpleNamespace(send=answers.put)), torch.device("cpu"), num_threads=2)
    embedder.start()
    while not embedder._scheduler._takes_single:
        time.sleep(0.001)
    embedder.handle(request(1, blobs[:1], checkpoint))
    one = answers.get(timeout=60)
    assert cores == {"embed-single": {2}}
    embedder.handle(request(2, blobs, checkpoint))
    many = answers.get(timeout=60)
    assert set(cores) - {"embed-single"} <= {"embed-0", "embed-1"}
    assert all(used == {1} for name, used in cores.items() if name != "embed-single")
    np.testing.assert_allclose(rows(one), rows(many)[:1], rtol=1e-4, atol=1e-5)
    embedder.handle(SetThreads(num_threads=1))
    cores.clear()
    embedder.handle(request(3, blobs[:1], checkpoint))
    np.testing.assert_allclose(rows(answers.get(timeout=60)), rows(one), rtol=1e-4, atol=1e-5)
    assert cores == {"embed-0": {1}}, "beside a trainer one core is the share of the embedder"
    embedder.handle(SetThreads(num_threads=2))
    while not embedder._scheduler._takes_single:
        time.sleep(0.001)
    embedder.handle(request(4, [b"junk"], checkpoint))
    assert [error.reason for error in answers.get(timeout=60).errors] == ["FORMAT_NOT_ALLOWED"]


def test_a_large_request_does_not_hold_up_a_small_one(worker: Any, checkpoint: str, blobs: list[bytes]) -> None:
    for number in (30, 31):
        worker.send(request(number, SLOW * 80, checkpoint))
    worker.send(request(32, blobs[:1], checkpoint))
    assert isinstance(answer(worker, 32), EmbedDone)
    assert not {30, 31} & {message.request_id for message in worker.of(EmbedDone)}
    large = [worker.until(EmbedDone) for _ in (30, 31)]  # they take turns, so either may end first
    assert {done.request_id: done.shape[0] for done in large} == dict.fromkeys((30, 31), 80)
