"""Uploads: the window as a state machine, and whole uploads against a fake server that breaks in scripted ways."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import manyview
from manyview._images import EncodedImage
from manyview._types import Limits
from manyview._upload import batches
from manyview.testing import FakeServer
from manyview.v1 import dataset_service_pb2 as pb

LIMITS = Limits(
    max_message_bytes=1 << 24,
    max_image_bytes=1 << 23,
    max_image_pixels=1 << 20,
    max_image_side=1 << 12,
    max_batch_images=8,
)


def many(count: int, num_bytes: int = 700_000) -> list[bytes]:
    """Distinct images of which two fill a batch."""
    return [index.to_bytes(4, "big") * (num_bytes // 4) for index in range(count)]


def test_images_labels_and_keys_arrive_and_the_report_counts_them(
    client: manyview.Client, server: FakeServer, tmp_path: Path
) -> None:
    for name, content in (("cat/a.jpg", b"a"), ("cat/b.PNG", b"b"), ("dog/c.webp", b"c"), ("dog/notes.md", b"-")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    dataset = client.upload(tmp_path, "pets")
    report = dataset.upload
    assert report is not None
    assert (dataset.name, dataset.num_images) == ("datasets/pets", 3)
    assert (report.num_sent, report.num_stored, report.num_rejected) == (3, 3, 0)
    stored = [(image.key, image.label) for image in server.state.images["datasets/pets"]]
    assert stored == [("cat/a.jpg", "cat"), ("cat/b.PNG", "cat"), ("dog/c.webp", "dog")]


def test_the_same_folder_again_sends_nothing(client: manyview.Client, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    client.upload(tmp_path, "pets")
    sent = len(server.requests("UploadImages"))
    again = client.upload(tmp_path, "pets").upload
    assert again is not None
    assert (again.num_sent, again.resumed_from) == (1, 1)
    assert len(server.requests("UploadImages")) == sent


def test_a_finished_folder_that_changed_is_a_new_upload(client: manyview.Client, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    client.upload(tmp_path, "pets")
    (tmp_path / "a.jpg").write_bytes(b"changed")
    assert client.upload(tmp_path, "pets").num_images == 2


def test_a_changed_prefix_under_a_chosen_id_is_refused(client: manyview.Client) -> None:
    client.upload([b"a", b"b"], "pets", upload_id="mine")
    with pytest.raises(manyview.UploadChanged, match="pass another upload_id"):
        client.upload([b"a", b"other"], "pets", upload_id="mine")


def test_refused_images_are_reported_and_their_neighbours_stored(client: manyview.Client, server: FakeServer) -> None:
    server.state.rejects[b"bad"] = "FORMAT_NOT_ALLOWED"
    server.state.max_image_bytes = 20
    dataset = client.upload([b"good", b"bad", b"x" * 21], "pets")
    report = dataset.upload
    assert report is not None
    assert dataset.num_images == 1
    assert report.num_rejected == 2
    reasons = {image.key: image.error.reason for image in report.rejected}
    assert reasons == {"00000001": "FORMAT_NOT_ALLOWED", "00000002": "IMAGE_TOO_LARGE"}
    sent = [image for request in server.requests("UploadImages") for image in request.batch.images]
    assert [image.data for image in sent] == [b"good", b"bad"]


def test_refused_images_raise_when_asked_to(client: manyview.Client, server: FakeServer) -> None:
    server.state.rejects[b"bad"] = "ANIMATED"
    with pytest.raises(manyview.UploadRejected, match="ANIMATED") as raised:
        client.upload([b"bad", b"good"], "pets", on_rejected="raise")
    assert raised.value.report.num_stored == 1


def test_a_second_copy_with_another_label_is_a_conflict(client: manyview.Client) -> None:
    report = client.upload([(b"same", "cat"), (b"same", "dog")], "pets").upload
    assert report is not None
    assert report.num_duplicates == 1
    expected = manyview.LabelConflict(key="00000001", label="dog", first_key="00000000", first_label="cat")
    assert report.label_conflicts == (expected,)


def test_a_stream_that_breaks_in_the_middle_is_resumed_without_loss_or_copy(
    client: manyview.Client, server: FakeServer
) -> None:
    server.fail("UploadImages", "UNAVAILABLE", after=3)
    server.fail("UploadImages", "UNAVAILABLE", after=2)
    images = many(12)
    report = client.upload(iter(images), "big").upload
    assert report is not None
    assert (report.num_sent, report.num_stored, report.num_duplicates) == (12, 12, 0)
    headers = [request.header for request in server.requests("UploadImages") if request.HasField("header")]
    assert len(headers) == 3
    assert headers[0].resume_digest == b""
    assert all(len(header.resume_digest) == 32 for header in headers[1:])


def test_an_upload_goes_on_though_nobody_answers_in_time_where_it_stands(
    client: manyview.Client, server: FakeServer
) -> None:
    server.fail("UploadImages", "UNAVAILABLE", after=2)
    scripted = iter([True])

    def progress(*_: object) -> None:
        if next(scripted, False):  # with the first ack: the question at the beginning was answered
            server.fail("GetUpload", "DEADLINE_EXCEEDED", times=2)

    assert client.upload(iter(many(12)), "big", progress=progress).num_images == 12
    assert len(server.requests("GetUpload")) == 4


def test_acks_that_were_lost_are_asked_for_again(client: manyview.Client, server: FakeServer) -> None:
    """The server commits a batch and dies before its ack: the refusal in it must still be reported."""
    server.state.rejects[b"bad"] = "ANIMATED"

    def commits_but_never_acks(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        answers = server.state.upload_images(requests, context)
        yield next(answers)
        next(answers)
        context.abort_with_status(_unavailable())

    server.reply("UploadImages", commits_but_never_acks)
    report = client.upload([b"bad", b"good"], "pets").upload
    assert report is not None
    assert [image.key for image in report.rejected] == ["00000000"]
    numbers = [request.batch.number for request in server.requests("UploadImages") if request.HasField("batch")]
    assert numbers == [1, 1]
    assert (report.num_sent, report.num_stored, report.num_rejected) == (2, 1, 1)


def _unavailable() -> Any:
    import grpc

    class Status(grpc.Status):
        code, details, trailing_metadata = grpc.StatusCode.UNAVAILABLE, "died", ()

    return Status()


def test_after_a_crash_of_the_client_the_same_call_goes_on_where_it_stopped(
    client: manyview.Client, server: FakeServer
) -> None:
    images = many(6)

    def dies() -> Iterator[bytes]:
        yield from images[:5]
        wait_until(lambda: server.state.uploads["datasets/big", "mine"].num_images == 4)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        client.upload(dies(), "big", upload_id="mine")
    sent = len(server.requests("UploadImages"))
    report = client.upload(images, "big", upload_id="mine").upload
    assert report is not None
    assert (report.resumed_from, report.num_sent, report.num_stored) == (4, 6, 6)
    batches = [request.batch for request in server.requests("UploadImages")[sent:] if request.HasField("batch")]
    assert [(batch.number, len(batch.images)) for batch in batches] == [(3, 2)]


def test_a_batch_that_the_broken_stream_committed_late_is_not_taken_for_a_change(
    client: manyview.Client, server: FakeServer
) -> None:
    images = many(6)
    client.upload(images[:2], "big", upload_id="other")
    server.state.uploads["datasets/big", "mine"] = upload = pb.Upload(dataset="datasets/big", upload_id="mine")
    stale = pb.GetUploadResponse(upload=upload)
    done = server.state.uploads["datasets/big", "other"]
    upload.MergeFrom(pb.Upload(committed_number=1, num_images=2, digest=done.digest))
    server.reply("GetUpload", stale)
    server.fail("UploadImages", "FAILED_PRECONDITION", reason="UPLOAD_CHANGED")
    report = client.upload(images, "big", upload_id="mine").upload
    assert report is not None
    assert (report.resumed_from, report.num_sent) == (2, 6)


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(200):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it never became true")


def test_no_more_than_the_window_is_unacknowledged_and_images_are_pulled_no_further(
    client: manyview.Client, server: FakeServer
) -> None:
    """A server that never acks: two batches come, and of the images only those and what completes the next batch."""
    pulled = 0
    received: list[int] = []
    quiet = threading.Event()

    def images() -> Iterator[bytes]:
        nonlocal pulled
        for image in many(40):
            pulled += 1
            yield image

    def never_acks(requests: Iterator[Any], _: Any) -> Iterator[Any]:
        opened = pb.UploadOpened(max_unacked_batches=2, max_unacked_bytes=100_000_000)
        next(requests)
        yield pb.UploadImagesResponse(opened=opened)
        for request in requests:
            received.append(request.batch.number)
            if len(received) == 2:
                quiet.wait(0.5)
                yield pb.UploadImagesResponse(error={"code": 13, "reason": "SCRIPTED", "message": "enough"})
                return

    server.reply("UploadImages", never_acks)
    with pytest.raises(manyview.Internal, match="enough"):
        client.upload(images(), "big")
    assert received == [1, 2]
    assert pulled == 2 * 2 + 1


def test_an_error_within_the_stream_keeps_its_reason(client: manyview.Client, server: FakeServer) -> None:
    def refuses(requests: Iterator[Any], _: Any) -> Iterator[Any]:
        next(requests)
        yield pb.UploadImagesResponse(error={"code": 10, "message": "a newer stream", "reason": "UPLOAD_FENCED"})

    server.reply("UploadImages", refuses)
    with pytest.raises(manyview.Aborted, match="a newer stream") as raised:
        client.upload([b"a"], "pets")
    assert raised.value.reason == "UPLOAD_FENCED"


def test_a_gap_is_resumed(client: manyview.Client, server: FakeServer) -> None:
    server.fail("UploadImages", "ABORTED", reason="SEQUENCE_GAP", after=1)
    assert client.upload([b"a"], "pets").num_images == 1


def test_no_images_at_all_is_an_error(client: manyview.Client) -> None:
    with pytest.raises(ValueError, match="no images to upload"):
        client.upload(iter([]), "pets")


def test_progress_is_told_to_a_callable(client: manyview.Client) -> None:
    told: list[tuple[int, int | None]] = []
    client.upload([b"a", b"b"], "pets", progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 2)]


def test_a_live_source_s_images_go_as_they_come_and_a_quick_one_s_in_full_batches() -> None:
    now = 0.0

    def source(count: int, every_s: float) -> Iterator[EncodedImage]:
        nonlocal now
        for n in range(count):
            now += every_s
            yield EncodedImage(f"{n}", b"x", "")

    def sizes(count: int, every_s: float) -> list[int]:
        made = batches(source(count, every_s), LIMITS, clock=lambda: now)
        return [len(batch) for batch in made]

    assert sizes(20, 0.01) == [8, 8, 4]
    assert sizes(7, 0.2) == [4, 3], "none waits longer than half a second, once the next one comes"
    assert sizes(16, 0.0) == [8, 8]
    pulled = source(100, 0.0)
    assert len(next(batches(pulled, LIMITS))) == 8
    assert next(pulled).key == "8", "a full batch does not wait for one image more"
