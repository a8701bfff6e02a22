"""Embeddings: rows in the order of the images from one checkpoint, whatever happens on the way."""

import hashlib
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import manyview
from manyview.testing import FakeServer

MODEL = "backbones/resnet18"


def images(count: int) -> list[bytes]:
    return [f"image {index}".encode() for index in range(count)]


def expected(data: list[bytes]) -> np.ndarray:
    return np.array([list(hashlib.sha256(item).digest()[:4]) for item in data], dtype=np.float32) / np.float32(255)


def test_one_small_batch_is_one_call(client: manyview.Client, server: FakeServer) -> None:
    found = client.embed(images(3), MODEL)
    np.testing.assert_allclose(found.array, expected(images(3)), rtol=1e-6)
    assert (found.array.dtype, found.checkpoint, len(found)) == (np.float32, MODEL, 3)
    assert not found.array.flags.writeable
    assert len(server.requests("Embed")) == 1
    assert server.requests("EmbedStream") == []


def test_tokens_of_patches_have_an_axis_of_their_own(client: manyview.Client, server: FakeServer) -> None:
    found = client.embed([*images(3), b""], MODEL, output="patch_tokens", batch_size=2)
    np.testing.assert_allclose(found.array[:3].reshape(3, 4), expected(images(3)), rtol=1e-6)
    assert (found.array.shape, [*found.errors]) == ((4, 2, 2), [3])
    assert np.isnan(found.array[3]).all()
    assert (found.std() > 0, 1 <= found.effective_rank() <= 2) == (True, True)
    assert {request.header.options.output for request in server.requests("EmbedStream")[:1]} == {6}


def test_many_are_streamed_and_come_in_order(client: manyview.Client, server: FakeServer) -> None:
    found = client.embed(images(23), MODEL, batch_size=4)
    np.testing.assert_allclose(found.array, expected(images(23)), rtol=1e-6)
    assert found.keys == tuple(f"{index:08d}" for index in range(23))
    assert server.requests("Embed") == []


def test_a_broken_stream_is_resumed_with_the_checkpoint_that_was_named(
    client: manyview.Client, server: FakeServer
) -> None:
    client.upload([b"a"], "pets")
    job = client.train("pets")
    server.add_scalars(job.name, 1, loss=1.0)
    server.fail("EmbedStream", "UNAVAILABLE", after=3)
    server.fail("EmbedStream", "UNAVAILABLE", after=1)
    found = client.embed(images(20), job, batch_size=2)
    np.testing.assert_allclose(found.array, expected(images(20)), rtol=1e-6)
    checkpoint = f"{job.name}/checkpoints/1"
    assert found.checkpoint == checkpoint
    headers = [request.header.model for request in server.requests("EmbedStream") if request.HasField("header")]
    assert headers == [job.name, checkpoint, checkpoint]


def test_a_refused_image_has_a_row_of_nan_and_its_neighbors_are_fine(
    client: manyview.Client, server: FakeServer
) -> None:
    server.state.max_image_bytes = 20
    found = client.embed([b"good", b"x" * 21, b"", b"fine"], MODEL, batch_size=2)
    assert {row: error.reason for row, error in found.errors.items()} == {1: "IMAGE_TOO_LARGE", 2: "IMAGE_EMPTY"}
    assert np.isnan(found.array).all(axis=1).tolist() == [False, True, True, False]
    assert math.isfinite(found.std())


def test_options_take_effect_or_are_refused(client: manyview.Client, server: FakeServer) -> None:
    found = client.embed(images(2), MODEL, l2_normalize=True, dtype="float16", output="projection")
    assert found.array.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(found.array.astype(np.float32), axis=1), 1, atol=1e-3)
    (request,) = server.requests("Embed")
    assert request.options.output == 2
    with pytest.raises(ValueError, match=r"output must be one of backbone, projection, class_token, .*, not 'head'"):
        client.embed(images(2), MODEL, output="head")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dtype must be one of float32, float16"):
        client.embed(images(2), MODEL, dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        client.embed(images(2), MODEL, batch_size=0)


def test_chunks_of_an_endless_source_need_bounded_memory(client: manyview.Client) -> None:
    pulled = 0

    def endless() -> Iterator[bytes]:
        nonlocal pulled
        while True:
            pulled += 1
            yield b"image %d" % pulled

    chunks = client.embed_iter(endless(), MODEL, batch_size=2)
    starts = [next(chunks).start for _ in range(5)]
    assert starts == [0, 2, 4, 6, 8]
    assert pulled <= 5 * 2 + 2 * 2 + 1 + 2
    chunks.close()  # type: ignore[attr-defined]


def test_no_images_is_an_error(client: manyview.Client) -> None:
    with pytest.raises(ValueError, match="no images to embed"):
        client.embed([], MODEL)


def test_the_standard_deviation_tells_spread_from_collapse() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32)
    healthy = manyview.Embeddings(array=rows, checkpoint="", keys=("",) * 500, labels=("",) * 500)
    assert abs(healthy.std() - 1 / math.sqrt(16)) < 0.02
    collapsed = manyview.Embeddings(array=np.ones_like(rows), checkpoint="", keys=("",) * 500, labels=("",) * 500)
    assert collapsed.std() < 1e-6


def embeddings(array: np.ndarray) -> manyview.Embeddings:
    return manyview.Embeddings(array=array, checkpoint="", keys=("",) * len(array), labels=("",) * len(array))


def test_std_and_rank_are_the_servers_to_the_sixth_digit() -> None:
    """The reference's golden value, and what `learn.collapse` gives for the same rows."""
    from manyview_server.learn.evaluation import collapse

    waves = np.sin(0.37 * np.arange(128) + 0.1).reshape(8, 16)
    assert embeddings(waves).std() == pytest.approx(0.1914458953, abs=1e-9)
    rng = np.random.default_rng(0)
    for shape, dtype in (
        ((8, 16), np.float32),
        ((300, 40), np.float32),
        ((40, 300), np.float32),
        ((64, 8), np.float16),
    ):
        rows = rng.normal(1, 2, shape).astype(dtype)
        tensor = torch.from_numpy(rows)
        assert embeddings(rows).std() == pytest.approx(collapse.representation_std(tensor).item(), abs=1e-6)
        assert embeddings(rows).effective_rank() == pytest.approx(collapse.effective_rank(tensor).item(), rel=1e-6)


def test_the_rank_by_hand_and_at_its_ends() -> None:
    assert embeddings(np.array([[3.0, 0, 0], [0, 0, 1]])).effective_rank() == pytest.approx(4 / 3**0.75)
    assert embeddings(np.eye(7, dtype=np.float32)).effective_rank() == pytest.approx(7)
    assert embeddings(np.ones((9, 4), np.float32)).effective_rank() == pytest.approx(1, abs=1e-3)
    assert embeddings(np.zeros((9, 4), np.float32)).effective_rank() == 0


def test_refused_images_count_for_nothing_and_one_or_no_row_is_no_error() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    gaps = np.insert(rows, 3, np.nan, axis=0)
    assert embeddings(gaps).std() == embeddings(rows).std()
    assert embeddings(gaps).effective_rank() == embeddings(rows).effective_rank()
    assert (embeddings(rows[:1]).std(), embeddings(rows[:1]).effective_rank()) == (0, pytest.approx(1))
    none = embeddings(np.full((2, 4), np.nan, np.float32))
    assert math.isnan(none.std())
    assert math.isnan(none.effective_rank())
