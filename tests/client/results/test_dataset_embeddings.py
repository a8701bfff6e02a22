"""A data set's embeddings: pages over as many streams as it takes, each row once."""

from __future__ import annotations

import numpy as np
import pytest

import manyview
from manyview._testing.embeddings import features
from manyview.testing import FakeServer
from manyview.v1 import embed_service_pb2 as pb

IMAGES = [b"one", b"two", b"three", b"four", b"five"]


@pytest.fixture(autouse=True)
def dataset(client: manyview.Client) -> manyview.Dataset:
    return client.upload([(data, f"class{row % 2}") for row, data in enumerate(IMAGES)], "pets")


def test_rows_come_in_the_order_of_the_data_set_with_keys_and_labels(client: manyview.Client) -> None:
    found = client.embed_dataset("pets", "backbones/resnet18")
    np.testing.assert_allclose(found.array, [features(data) for data in IMAGES], rtol=1e-6)
    assert found.checkpoint == "backbones/resnet18"
    assert found.keys == tuple(f"{row:08}" for row in range(5))
    assert found.labels == ("class0", "class1", "class0", "class1", "class0")
    assert (found.errors, found.variance_kept) == ({}, None)
    assert not found.array.flags.writeable


def test_chunks_come_one_by_one_with_their_places(client: manyview.Client) -> None:
    chunks = client.embed_dataset_iter("pets", "backbones/resnet18")
    assert [(chunk.start, len(chunk)) for chunk in chunks] == [(0, 2), (2, 2), (4, 1)]


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_stream_that_breaks_goes_on_where_it_was(client: manyview.Client, server: FakeServer, after: int) -> None:
    server.fail("EmbedDataset", "UNAVAILABLE", after=after)
    found = client.embed_dataset("pets", "backbones/resnet18")
    np.testing.assert_allclose(found.array, [features(data) for data in IMAGES], rtol=1e-6)
    tokens = [request.page_token for request in server.requests("EmbedDataset")]
    assert tokens == ["", f"backbones/resnet18 5 {2 * (after - 1)}"]


def test_a_resumed_stream_stays_with_its_checkpoint_and_version(client: manyview.Client, server: FakeServer) -> None:
    client.train("pets", job_id="mine")
    chunks = client.embed_dataset_iter("pets", "mine")
    first = next(chunks)
    server.add_scalars("trainJobs/mine", 1, loss=1.0)  # a newer checkpoint, as the fake has it
    client.upload([b"six"], "pets")
    server.fail("EmbedDataset", "UNAVAILABLE")
    rest = list(chunks)
    assert {chunk.checkpoint for chunk in (first, *rest)} == {"trainJobs/mine/checkpoints/0"}
    assert sum(map(len, (first, *rest))) == 5


def test_the_request_says_what_was_asked_for(client: manyview.Client, server: FakeServer) -> None:
    found = client.embed_dataset(
        "pets", "backbones/resnet18", version=3, pca=2, whiten=True, l2_normalize=True, dtype="float16"
    )
    (request,) = server.requests("EmbedDataset")
    assert (request.version, request.pca, request.options.l2_normalize) == (
        3, pb.Pca(num_components=2, whiten=True), True,
    )  # fmt: skip
    assert (found.array.shape, found.array.dtype, found.variance_kept) == ((3, 2), np.float16, 0.5)
    client.embed_dataset("pets", "backbones/resnet18", pca=0.75)
    assert server.requests("EmbedDataset")[1].pca == pb.Pca(variance_fraction=0.75)


def test_progress_is_told(client: manyview.Client) -> None:
    reported: list[tuple[int, int | None]] = []
    client.embed_dataset("pets", "backbones/resnet18", progress=lambda done, total: reported.append((done, total)))
    assert reported == [(2, 5), (4, 5), (5, 5)]


def test_a_row_that_comes_twice_or_never_is_noticed(client: manyview.Client, server: FakeServer) -> None:
    page = pb.EmbeddingsPage(first_row=2)
    page.embeddings.data_type, page.embeddings.shape[:] = 1, [0, 4]  # type: ignore[assignment]
    server.reply("EmbedDataset", lambda *_: [pb.EmbedDatasetResponse(page=page)])
    with pytest.raises(manyview.Internal, match="row 2 came, but row 0 was expected"):
        client.embed_dataset("pets", "backbones/resnet18")


def test_what_makes_no_sense_is_refused_before_it_is_sent(client: manyview.Client, server: FakeServer) -> None:
    with pytest.raises(ValueError, match="whiten needs pca"):
        client.embed_dataset("pets", "backbones/resnet18", whiten=True)
    with pytest.raises(TypeError, match="pca must be a number of dimensions"):
        client.embed_dataset("pets", "backbones/resnet18", pca=True)
    with pytest.raises(TypeError, match="not 'all'"):
        client.embed_dataset("pets", "backbones/resnet18", pca="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="output must be one of"):
        client.embed_dataset_iter("pets", "backbones/resnet18", output="logits")  # type: ignore[arg-type]
    assert server.requests("EmbedDataset") == []
