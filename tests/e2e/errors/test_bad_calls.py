"""Calls that are wrong: names, order, size, state. Each gets its canonical code, a reason and a text that helps."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

import manyview
from manyview.v1 import (
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    embed_service_pb2,
    embed_service_pb2_grpc,
    metrics_service_pb2,
    model_service_pb2,
    train_job_service_pb2,
    types_pb2,
)
from support.clients.wire import Wire, batch, finish, header, image, refused
from support.service.harness import SMALL_JOB, ServerProcess, jpeg, write_photos

SERVICES = (
    dataset_service_pb2,
    train_job_service_pb2,
    embed_service_pb2,
    metrics_service_pb2,
    model_service_pb2,
)
METHODS = [
    method for file in SERVICES for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods
]
ENDLESS = SMALL_JOB | {"epochs": 100_000, "evaluation": {"knn_every_epochs": 0}, "checkpoint_every_epochs": 1000}


@pytest.fixture(scope="module")
def dataset(client: manyview.Client, tmp_path_factory: pytest.TempPathFactory) -> manyview.Dataset:
    folder = tmp_path_factory.mktemp("called")
    write_photos(folder, 32, seed=4)
    return client.upload(folder, dataset="called")


@pytest.fixture(scope="module")
def finished_job(client: manyview.Client, dataset: manyview.Dataset) -> manyview.Job:
    job = client.train(dataset, epochs=1, config=SMALL_JOB, job_id="finished")
    job.wait(timeout_s=40)
    return job


@pytest.fixture
def upload(wire: Wire) -> Iterator[str]:
    """The name of an empty data set of its own."""
    name = f"set-{uuid.uuid4().hex[:8]}"
    request = dataset_service_pb2.CreateDatasetRequest(dataset_id=name)
    wire.call(dataset_service_pb2_grpc.DatasetServiceStub, "CreateDataset", request)
    yield name
    delete = dataset_service_pb2.DeleteDatasetRequest(name=f"datasets/{name}")
    wire.call(dataset_service_pb2_grpc.DatasetServiceStub, "DeleteDataset", delete)


# --- names


def test_what_does_not_exist_is_not_found_and_named(client: manyview.Client, finished_job: manyview.Job) -> None:
    with refused(manyview.NotFound, "DATASET_NOT_FOUND", "'nowhere'"):
        client.dataset("nowhere")
    with refused(manyview.NotFound, "DATASET_NOT_FOUND", "'nowhere'"):
        client.train("nowhere")
    with refused(manyview.NotFound, "DATASET_NOT_FOUND", "'nowhere'"):
        client.delete_dataset("nowhere")
    with refused(manyview.NotFound, "DATASET_NOT_FOUND", "'nowhere'"):
        list(client.images("nowhere"))
    with refused(manyview.NotFound, "TRAIN_JOB_NOT_FOUND", "'nobody'"):
        client.job("nobody")
    with refused(manyview.NotFound, "TRAIN_JOB_NOT_FOUND", "'nobody'"):
        client.embed([jpeg()], model="nobody")
    with refused(manyview.NotFound, "MODEL_NOT_FOUND", "no checkpoint of step 77"):
        client.model(f"{finished_job.name}/checkpoints/77")
    with refused(manyview.NotFound, "MODEL_NOT_FOUND", "'vgg16'", "resnet9, resnet18, resnet34, resnet50"):
        client.embed([jpeg()], model="backbones/vgg16")


@pytest.mark.parametrize("name", ["", "Upper", "-first", "sp ace", "a/b", "x" * 64, "..", "ü", "a\n"])
def test_a_name_that_breaks_the_rule_is_refused_with_the_rule(
    client: manyview.Client, dataset: manyview.Dataset, name: str
) -> None:
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "a-z or 0-9 first") as caught:
        client.dataset(f"datasets/{name}")
    assert [violation.field for violation in caught.value.violations] == ["name"]
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "a-z or 0-9 first"):
        client.job(f"trainJobs/{name}")
    if name:
        with refused(manyview.InvalidArgument, "FIELD_INVALID", "a-z or 0-9 first") as caught:
            client.train(dataset, job_id=name, config=SMALL_JOB)
        assert [violation.field for violation in caught.value.violations] == ["train_job_id"]


def test_a_model_of_no_known_form_is_refused_with_the_forms(client: manyview.Client) -> None:
    for name in ("backbones/../etc", "models/x", "trainJobs/x/checkpoints/last"):
        with refused(manyview.InvalidArgument, "FIELD_INVALID", "trainJobs/{id}/checkpoints/{step}"):
            client.model(name)


def test_an_id_is_given_once(client: manyview.Client, dataset: manyview.Dataset, wire: Wire, upload: str) -> None:
    stub = dataset_service_pb2_grpc.DatasetServiceStub
    with refused(manyview.AlreadyExists, "DATASET_EXISTS", upload):
        wire.call(stub, "CreateDataset", dataset_service_pb2.CreateDatasetRequest(dataset_id=upload))
    client.train(dataset, config=ENDLESS, job_id="once").cancel()
    with refused(manyview.AlreadyExists, "TRAIN_JOB_EXISTS", "'once'"):
        client.train(dataset, config=ENDLESS, job_id="once")


def test_a_request_id_stands_for_one_request(client: manyview.Client, wire: Wire) -> None:
    stub, request_id = dataset_service_pb2_grpc.DatasetServiceStub, str(uuid.uuid4())
    first = dataset_service_pb2.CreateDatasetRequest(dataset_id="asked-once", request_id=request_id)
    answer = wire.call(stub, "CreateDataset", first)
    assert wire.call(stub, "CreateDataset", first) == answer
    other = dataset_service_pb2.CreateDatasetRequest(dataset_id="asked-else", request_id=request_id)
    with refused(manyview.AlreadyExists, "REQUEST_ID_REUSED", request_id):
        wire.call(stub, "CreateDataset", other)
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "not a UUID"):
        wire.call(
            stub, "CreateDataset", dataset_service_pb2.CreateDatasetRequest(dataset_id="asked-else", request_id="x")
        )
    with refused(manyview.NotFound, "DATASET_NOT_FOUND"):
        client.dataset("asked-else")


# --- messages


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_bytes_that_are_no_message_are_a_malformed_request(wire: Wire, method: Any) -> None:
    streams = (method.client_streaming, method.server_streaming)
    with refused(manyview.InvalidArgument, "MALFORMED_REQUEST", "not a message of the type that this method takes"):
        wire.send_bytes(method.containing_service.full_name, method.name, streams=streams, data=b"\xff\xff")


def test_a_message_over_the_limit_exhausts_it(client: manyview.Client, wire: Wire, upload: str) -> None:
    limit = client.server_info().limits.max_message_bytes
    large = types_pb2.Image(data=bytes(limit))
    request = embed_service_pb2.EmbedRequest(model="backbones/resnet9", images=[large])
    with pytest.raises(manyview.ResourceExhausted, match=f"{limit}"):
        wire.call(embed_service_pb2_grpc.EmbedServiceStub, "Embed", request)
    answer = wire.upload([header(upload, "large"), batch(1, large)])
    assert answer.error is not None
    assert answer.error.code == "RESOURCE_EXHAUSTED"
    assert client.health() == "SERVING"
    assert client.dataset(upload).num_images == 0


# --- uploads


def test_a_gap_in_the_numbers_is_told_in_the_stream_with_the_number_expected(wire: Wire, upload: str) -> None:
    images = [image(jpeg(seed=seed)) for seed in range(3)]
    answer = wire.upload([header(upload, "gap"), batch(1, images[0]), batch(3, images[2]), finish(2)])
    assert [message.WhichOneof("payload") for message in answer.messages] == ["opened", "ack", "error"]
    error = answer.assert_failed("ABORTED", "SEQUENCE_GAP")
    assert dict(error.metadata) == {"expected": "2"}
    assert error.message == "batch 3 came, but batch 2 was expected"
    again = wire.upload([header(upload, "gap"), batch(2, images[1]), batch(3, images[2]), finish(3)])
    assert again.error is None, "acknowledged images stay, and the upload continues"
    assert again.messages[-1].finished.upload.num_stored == 3


def test_a_gap_in_a_stream_of_embeddings_is_told_like_one_in_an_upload(wire: Wire) -> None:
    call = embed_service_pb2_grpc.EmbedServiceStub(wire.channel).EmbedStream
    requests = [
        embed_service_pb2.EmbedStreamRequest(header=embed_service_pb2.EmbedHeader(model="backbones/resnet9")),
        embed_service_pb2.EmbedStreamRequest(batch=types_pb2.ImageBatch(number=2, images=[image(jpeg())])),
    ]
    answers = call(iter(requests), timeout=20)
    assert next(answers).opened.checkpoint == "backbones/resnet9"
    error = next(answers).error
    assert (error.reason, dict(error.metadata)) == ("SEQUENCE_GAP", {"expected": "1"})


def test_a_finish_with_another_count_completes_nothing(client: manyview.Client, wire: Wire, upload: str) -> None:
    answer = wire.upload([header(upload, "count"), batch(1, image(jpeg())), finish(2)])
    error = answer.assert_failed("FAILED_PRECONDITION", "FINISH_MISMATCH")
    assert dict(error.metadata) == {"have": "1", "want": "2"}
    assert wire.upload([header(upload, "count"), finish(1)]).messages[-1].finished.upload.finished
    late = wire.upload([header(upload, "count"), batch(2, image(jpeg(seed=1)))])
    late.assert_failed("FAILED_PRECONDITION", "UPLOAD_FINISHED")
    assert client.dataset(upload).num_images == 1


def test_other_images_than_those_acknowledged_are_noticed(wire: Wire, upload: str) -> None:
    first, other = image(jpeg(seed=1)), image(jpeg(seed=2))
    wire.upload([header(upload, "resumed"), batch(1, first)])
    digest = hashlib.sha256(other.sha256).digest()
    wire.upload([header(upload, "resumed", digest)]).assert_failed("FAILED_PRECONDITION", "UPLOAD_CHANGED")
    again = wire.upload([header(upload, "resumed"), batch(1, other)])
    again.assert_failed("FAILED_PRECONDITION", "UPLOAD_CHANGED")
    right = wire.upload([header(upload, "resumed", hashlib.sha256(first.sha256).digest()), finish(1)])
    assert right.error is None
    short = wire.upload([header(upload, "resumed", b"short")])
    short.assert_failed("INVALID_ARGUMENT", "FIELD_INVALID")


def test_a_stream_that_is_no_upload_is_refused(wire: Wire, upload: str) -> None:
    good = image(jpeg())
    for requests, words in (
        ([], "first message of the stream must be a header"),
        ([batch(1, good)], "first message of the stream must be a header"),
        ([header(upload, "two"), header(upload, "two")], "one header"),
        ([header(upload, "bad id!")], "not a valid upload id"),
        ([header(upload, "zero"), batch(0, good)], "numbered from 1"),
        ([header(upload, "none"), batch(1)], "a batch has 1 to 256"),
        ([header(upload, "nil"), dataset_service_pb2.UploadImagesRequest()], "a batch or a finish"),
    ):
        assert words in wire.upload(requests).assert_failed("INVALID_ARGUMENT", "FIELD_INVALID").message
    wire.upload([header("nowhere", "lost")]).assert_failed("NOT_FOUND", "DATASET_NOT_FOUND")


def test_a_folder_that_changed_since_an_interrupted_upload_is_not_taken_for_the_same(
    client: manyview.Client, tmp_path: Path
) -> None:
    paths = write_photos(tmp_path, 600, seed=5, side=8)

    class InterruptedByTheUser(Exception):
        pass

    def interrupt(done: int, total: int | None) -> None:
        raise InterruptedByTheUser

    with pytest.raises(InterruptedByTheUser):
        client.upload(tmp_path, dataset="interrupted", progress=interrupt)
    acknowledged = client.dataset("interrupted").num_images
    assert 0 < acknowledged <= 600
    before = paths[0].read_bytes()
    paths[0].write_bytes(jpeg(seed=99))
    with refused(manyview.UploadChanged, "UPLOAD_CHANGED", "pass another upload_id"):
        client.upload(tmp_path, dataset="interrupted")
    paths[0].write_bytes(before)
    report = client.upload(tmp_path, dataset="interrupted").upload
    assert report is not None
    assert report.num_sent == report.num_stored + report.resumed_from == report.num_found == 600
    assert report.resumed_from >= acknowledged


# --- cursors, pages, states


def test_a_cursor_ahead_of_the_log_is_out_of_range_and_the_error_says_what_is_held(finished_job: manyview.Job) -> None:
    last = finished_job.refresh().last_sequence
    assert list(finished_job.metrics(after=last)) == []
    for ahead in (1, 10, 2**62):
        with refused(manyview.OutOfRange, "SEQUENCE_AHEAD", f"{last}", f"{last + ahead}") as caught:
            list(finished_job.metrics(after=last + ahead))
        assert caught.value.metadata == {"oldest": "1", "newest": str(last)}
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "after_sequence", "-1"):
        list(finished_job.metrics(after=-1))


def test_a_page_token_of_another_query_is_refused(
    client: manyview.Client, dataset: manyview.Dataset, wire: Wire
) -> None:
    stub = dataset_service_pb2_grpc.DatasetServiceStub
    page = wire.call(stub, "ListImages", dataset_service_pb2.ListImagesRequest(dataset=dataset.name, page_size=5))
    for token in (page.next_page_token, "nonsense", "ü"):
        with refused(manyview.InvalidArgument, "FIELD_INVALID", "page_token"):
            wire.call(stub, "ListDatasets", dataset_service_pb2.ListDatasetsRequest(page_token=token))
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "page_size", "-1"):
        wire.call(stub, "ListDatasets", dataset_service_pb2.ListDatasetsRequest(page_size=-1))


def test_a_job_in_the_wrong_state_refuses_and_says_its_state(
    client: manyview.Client, dataset: manyview.Dataset, finished_job: manyview.Job
) -> None:
    with refused(manyview.FailedPrecondition, "STATE_CONFLICT", "SUCCEEDED") as caught:
        finished_job.cancel()
    assert caught.value.metadata == {"state": "SUCCEEDED"}
    job = client.train(dataset, config=ENDLESS)
    with refused(manyview.FailedPrecondition, "STATE_CONFLICT", "cancel it first"):
        job.delete()
    with refused(manyview.FailedPrecondition, "DATASET_IN_USE", job.id, dataset.id) as caught:
        client.delete_dataset(dataset)
    assert caught.value.metadata == {"train_job": job.id}
    with refused(manyview.NotFound, "MODEL_NOT_FOUND", "no checkpoint yet"):
        client.embed([jpeg()], model=job)
    job.cancel()
    with pytest.raises(manyview.TrainJobCancelled):
        job.wait(timeout_s=30)
    assert job.cancel().state == "CANCELLED", "cancelling what is cancelled is fine"
    job.delete()
    with refused(manyview.NotFound, "TRAIN_JOB_NOT_FOUND", job.id):
        job.refresh()


def test_a_projection_that_is_not_there_is_refused(client: manyview.Client) -> None:
    with refused(manyview.FailedPrecondition, "NO_PROJECTION_HEAD", "backbones/resnet9"):
        client.embed([jpeg()], model="backbones/resnet9", output="projection")


# --- faults inside


def test_weights_that_do_not_fit_are_told_without_what_the_library_said(
    client: manyview.Client, server: ServerProcess
) -> None:
    file = server.data_dir / "weights" / "resnet34.safetensors"
    file.write_bytes(b"no weights at all")
    try:
        with refused(manyview.FailedPrecondition, "WEIGHTS_INVALID", "resnet34", "not a safetensors file"):
            client.embed([jpeg()], model="backbones/resnet34")
    finally:
        file.unlink()


def test_a_checkpoint_that_lost_a_file_is_told_without_its_path(
    client: manyview.Client, server: ServerProcess, finished_job: manyview.Job
) -> None:
    job = finished_job
    (directory,) = (server.data_dir / "jobs" / job.info.uid).glob("*/*")
    (directory / "backbone.safetensors").unlink()
    with refused(manyview.DataLoss, "CHECKPOINT_CORRUPT"):
        client.embed([jpeg()], model=job)
    with refused(manyview.NotFound, "MODEL_NOT_FOUND", job.name):
        client.export(job, server.data_dir / "never.safetensors")


def test_a_method_whose_name_is_no_text_silences_nobody_for_long(new_server: Callable[..., ServerProcess]) -> None:
    """It ends grpc.aio's loop: the server opens its port again."""
    server = new_server("--fork-workers", "off")
    server.start()
    for _ in range(2):
        with grpc.insecure_channel(server.address) as channel:
            call = channel.unary_unary(cast(Any, b"/manyview.v1.ModelServ\xe9ce/GetServerInfo"), bytes, bytes)
            with pytest.raises(grpc.RpcError):
                call(b"", timeout=5)
        with server.client() as client:
            assert isinstance(client.datasets(), list), "calls are tried again"
            assert client.health() == "SERVING"
    assert server.stop() == 0
