"""The upload stream over a real port and the real store: acks, window, resume, refusals, errors, drain."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest

from manyview.v1 import dataset_service_pb2 as pb
from manyview.v1 import types_pb2
from manyview_server.front.datasets.received_batch import read_batch

R = pb.ImageResult


@pytest.fixture
async def dataset(front: Any) -> str:
    await front.datasets.CreateDataset(pb.CreateDatasetRequest(dataset_id="shirts"))
    return "datasets/shirts"


def header(dataset: str, upload_id: str = "u1", digest: bytes = b"") -> pb.UploadImagesRequest:
    return pb.UploadImagesRequest(header=pb.UploadHeader(dataset=dataset, upload_id=upload_id, resume_digest=digest))


def batch(number: int, images: Sequence[types_pb2.Image]) -> pb.UploadImagesRequest:
    return pb.UploadImagesRequest(batch=types_pb2.ImageBatch(number=number, images=images))


def finish(num_images: int) -> pb.UploadImagesRequest:
    return pb.UploadImagesRequest(finish=pb.UploadFinish(num_images=num_images))


async def talk(front: Any, *requests: pb.UploadImagesRequest) -> list[pb.UploadImagesResponse]:
    """Send all requests, half-close, and return the responses. The status must match the error in the stream."""
    call = front.datasets.UploadImages()
    for request in requests:
        await call.write(request)
    await call.done_writing()
    responses: list[pb.UploadImagesResponse] = []
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for response in call:
            responses.append(response)
    assert (await call.code()).value[0] == (responses[-1].error.code if responses else 0)
    return responses


async def test_each_batch_is_acknowledged_in_order_and_the_finish_sums_up(
    front: Any, dataset: str, png: Any, image: Any
) -> None:
    batches = [batch(n, [image(png(3 * n + i), f"{n}/{i}.png", f"label{n}") for i in range(3)]) for n in range(1, 21)]
    opened, *acks, finished = await talk(front, header(dataset), *batches, finish(60))
    assert opened.opened.max_unacked_batches == 8
    assert opened.opened.upload.committed_number == 0
    assert [response.ack.number for response in acks] == list(range(1, 21))
    assert {result.outcome for response in acks for result in response.ack.results} == {R.OUTCOME_STORED}
    digest = hashlib.sha256(batches[0].batch.images[0].data).digest()
    assert acks[0].ack.results[0].image_id == f"{int.from_bytes(digest[:8], 'big') >> 1:016x}"
    assert finished.finished.upload.finished
    assert finished.finished.dataset.num_images == 60
    assert finished.finished.dataset.num_labels == 20
    listed = (await front.datasets.ListImages(pb.ListImagesRequest(dataset=dataset))).images
    assert [(i.key, i.width, i.height) for i in listed[:2]] == [("1/0.png", 8, 8), ("1/1.png", 8, 8)]


async def test_an_image_is_refused_alone_and_listed_with_its_reason(
    front: Any, dataset: str, png: Any, image: Any
) -> None:
    good = image(png(1), "good.png")
    damaged = types_pb2.Image(data=png(2), key="damaged.png", sha256=bytes(32))
    images = [
        good,
        image(b"8BPS....", "a.psd"),
        image(b"", "empty"),
        damaged,
        types_pb2.Image(data=png(3), key="unsummed.png"),
        image(png(4), "bad\nkey"),
        image(png(5), "x", "l" * 1025),
        image(png(6)[:20], "cut.png"),
        good,
    ]
    _, ack, finished = await talk(front, header(dataset), batch(1, images), finish(9))
    results = ack.ack.results
    assert [result.error.reason for result in results] == [
        "",
        "FORMAT_NOT_ALLOWED",
        "IMAGE_EMPTY",
        "CHECKSUM_MISMATCH",
        "CHECKSUM_MISMATCH",
        "KEY_INVALID",
        "LABEL_INVALID",
        "HEADER_CORRUPT",
        "",
    ]
    assert (results[8].outcome, results[8].first_key) == (R.OUTCOME_DUPLICATE, "good.png")
    assert finished.finished.upload.num_rejected == 7
    request = pb.ListImagesRequest(dataset=dataset, statuses=[pb.StoredImage.STATUS_REJECTED])
    listed = (await front.datasets.ListImages(request)).images
    assert [i.error.reason for i in listed] == [r.error.reason for r in results if r.error.reason]
    assert listed[4].key == "bad\N{REPLACEMENT CHARACTER}key"


async def test_a_batch_with_a_field_of_a_newer_client_is_stored_too(
    front: Any, dataset: str, png: Any, image: Any
) -> None:
    unknown = b"\xa2\x1f\x01x"  # field 500
    newer = batch(1, [image(png(1), "1")]).SerializeToString() + unknown
    assert read_batch(newer) is None
    request = pb.UploadImagesRequest.FromString(newer)
    assert request.SerializeToString() == newer
    _, ack, finished = await talk(front, header(dataset), request, finish(1))
    assert ack.ack.results[0].outcome == R.OUTCOME_STORED
    assert finished.finished.dataset.num_images == 1


async def test_a_half_close_completes_nothing_and_the_upload_resumes(
    front: Any, dataset: str, png: Any, image: Any
) -> None:
    first, second = image(png(1), "1"), image(png(2), "2")
    responses = await talk(front, header(dataset), batch(1, [first]))
    assert [response.WhichOneof("payload") for response in responses] == ["opened", "ack"]
    upload = (await front.datasets.GetUpload(pb.GetUploadRequest(dataset=dataset, upload_id="u1"))).upload
    assert (upload.committed_number, upload.finished) == (1, False)
    assert upload.digest == hashlib.sha256(first.sha256).digest()
    resumed = await talk(front, header(dataset, digest=upload.digest), batch(1, [first]), batch(2, [second]), finish(2))
    assert [r.ack.number for r in resumed[1:3]] == [1, 2]
    assert resumed[1].ack.results[0].outcome == R.OUTCOME_STORED
    assert resumed[-1].finished.dataset.num_images == 2


async def test_an_upload_creates_its_data_set_and_leaves_no_empty_one(front: Any, png: Any, image: Any) -> None:
    opening = pb.UploadHeader(dataset="datasets/fresh", upload_id="u1", create_dataset=True)
    request = pb.UploadImagesRequest(header=opening)
    _, ack, finished = await talk(front, request, batch(1, [image(b"no image", "a")]), finish(1))
    assert ack.ack.results[0].outcome == R.OUTCOME_REJECTED
    assert finished.finished.upload.num_rejected == 1
    assert not finished.finished.HasField("dataset")
    assert not (await front.datasets.ListDatasets(pb.ListDatasetsRequest())).datasets
    *_, finished = await talk(front, request, batch(1, [image(png(1), "b")]), finish(1))
    assert finished.finished.dataset.num_images == 1


async def error_of(front: Any, *requests: pb.UploadImagesRequest) -> types_pb2.StreamError:
    return (await talk(front, *requests))[-1].error


async def test_terminal_errors_come_in_the_stream_and_as_the_status(
    front: Any, dataset: str, png: Any, image: Any
) -> None:
    one = image(png(1), "1")
    gap = await error_of(front, header(dataset, "gap"), batch(2, [one]))
    assert (gap.reason, gap.metadata["expected"]) == ("SEQUENCE_GAP", "1")
    short = await error_of(front, header(dataset, "short"), batch(1, [one]), finish(2))
    assert (short.reason, short.metadata["have"], short.metadata["want"]) == ("FINISH_MISMATCH", "1", "2")
    assert (await error_of(front, header("datasets/none"))).reason == "DATASET_NOT_FOUND"
    changed = await error_of(front, header(dataset, "short", bytes(32)))
    assert changed.reason == "UPLOAD_CHANGED"


async def test_what_breaks_the_protocol_names_the_field(front: Any, dataset: str, png: Any, image: Any) -> None:
    one = image(png(1), "1")
    cases = {
        "header": [batch(1, [one])],
        "header.dataset": [header("shirts")],
        "header.upload_id": [header(dataset, "a/b")],
        "header.resume_digest": [header(dataset, "u", b"short")],
        "batch.number": [header(dataset), batch(0, [one])],
        "batch.images": [header(dataset), batch(1, [])],
        "payload": [header(dataset), pb.UploadImagesRequest()],
    }
    for field, requests in cases.items():
        error = await error_of(front, *requests)
        assert (error.reason, error.message.split(":")[0]) == ("FIELD_INVALID", field)
    assert "one header" in (await error_of(front, header(dataset), header(dataset))).message
    too_many = await error_of(front, header(dataset), batch(1, [one] * 257))
    assert "1 to 256" in too_many.message


async def test_acks_before_an_error_are_sent_first(front: Any, dataset: str, png: Any, image: Any) -> None:
    responses = await talk(
        front, header(dataset), batch(1, [image(png(1))]), batch(2, [image(png(2))]), batch(4, [image(png(3))])
    )
    assert [r.WhichOneof("payload") for r in responses] == ["opened", "ack", "ack", "error"]


async def test_a_second_stream_fences_the_first(front: Any, dataset: str, png: Any, image: Any) -> None:
    first = front.datasets.UploadImages()
    await first.write(header(dataset))
    await first.read()
    assert (await talk(front, header(dataset), batch(1, [image(png(1))])))[1].ack.number == 1
    await first.write(batch(2, [image(png(2))]))
    assert (await first.read()).error.reason == "UPLOAD_FENCED"
    await first.done_writing()
    assert await first.code() == grpc.StatusCode.ABORTED


async def test_a_stream_that_sends_nothing_is_told_too_when_it_is_fenced(
    front: Any, dataset: str, png: Any, image: Any
) -> None:
    first = front.datasets.UploadImages()
    await first.write(header(dataset))
    await first.read()
    refused = await talk(front, header(dataset, digest=bytes(32)))
    assert refused[-1].error.reason == "UPLOAD_CHANGED", "a stream that is refused fences nobody"
    await talk(front, header(dataset, "another"))
    second = front.datasets.UploadImages()
    await second.write(header(dataset))
    await second.read()
    async with asyncio.timeout(5):
        assert (await first.read()).error.reason == "UPLOAD_FENCED"
        await first.done_writing()
        assert await first.code() == grpc.StatusCode.ABORTED
    await second.write(batch(1, [image(png(1))]))
    assert (await second.read()).ack.number == 1


async def test_a_drain_ends_an_idle_stream_with_a_reason(front: Any, dataset: str, png: Any, image: Any) -> None:
    call = front.datasets.UploadImages()
    await call.write(header(dataset))
    await call.write(batch(1, [image(png(1))]))
    await call.read()
    await call.read()
    await front.server.begin_drain()
    error = (await call.read()).error
    assert (error.reason, error.code) == ("DRAINING", grpc.StatusCode.UNAVAILABLE.value[0])
    assert error.retry_after_ms > 0
    await call.done_writing()
    assert await call.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_client_that_never_half_closes_is_cut_off(
    front: Any, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyview_server.front.rpc.bidi.DROP_REST_S", 0.2)
    call = front.datasets.UploadImages()
    await call.write(header("datasets/none"))
    assert (await call.read()).error.reason == "DATASET_NOT_FOUND"
    async with asyncio.timeout(5):
        assert await call.code() == grpc.StatusCode.NOT_FOUND


async def test_a_client_that_reads_no_acks_is_held_to_the_window(
    front: Any, dataset: str, png: Any, image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store answers nothing: no more batches than the window holds may reach it."""
    taken: list[int] = []
    gate = asyncio.Event()

    async def append(self: Any, number: int, images: Any) -> list[Any]:
        taken.append(number)
        await gate.wait()
        return []

    monkeypatch.setattr("manyview_server.store.images.uploads.UploadSession.append", append)
    call = front.datasets.UploadImages()
    await call.write(header(dataset))
    for number in range(1, 31):
        await call.write(batch(number, [image(png(number))]))
    await asyncio.sleep(0.5)
    assert taken == list(range(1, 9))
    gate.set()
    await call.done_writing()
    numbers = [response.ack.number async for response in call if response.WhichOneof("payload") == "ack"]
    assert numbers == list(range(1, 31))


async def test_a_killed_client_leaves_what_was_acknowledged(front: Any, dataset: str, png: Any, image: Any) -> None:
    call = front.datasets.UploadImages()
    await call.write(header(dataset))
    await call.write(batch(1, [image(png(1))]))
    await call.read()
    await call.read()
    call.cancel()
    upload = (await front.datasets.GetUpload(pb.GetUploadRequest(dataset=dataset, upload_id="u1"))).upload
    assert (upload.committed_number, upload.finished) == (1, False)


async def generated(requests: Sequence[pb.UploadImagesRequest]) -> AsyncIterator[pb.UploadImagesRequest]:
    for request in requests:
        yield request


async def test_many_uploads_at_once_each_get_their_acks(front: Any, dataset: str, png: Any, image: Any) -> None:
    async def one(u: int) -> list[int]:
        batches = [batch(n, [image(png(n), f"{u}/{n}")]) for n in range(1, 11)]
        call = front.datasets.UploadImages(generated([header(dataset, f"u{u}"), *batches, finish(10)]))
        return [response.ack.number async for response in call if response.WhichOneof("payload") == "ack"]

    assert await asyncio.gather(*(one(u) for u in range(8))) == [list(range(1, 11))] * 8
