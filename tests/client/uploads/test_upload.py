"""Uploads: the window as a state machine, and whole uploads against a fake server that breaks in scripted ways."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

import manyview
from manyview._uploads.encoded_image import EncodedImage
from manyview._uploads.window import chain
from manyview.testing import FakeServer
from manyview.v1 import dataset_service_pb2 as pb


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
    assert (again.num_sent, again.resumed_from, again.num_stored, again.num_found) == (1, 1, 0, 1)
    assert len(server.requests("UploadImages")) == sent


def test_a_finished_folder_that_changed_is_a_new_upload(client: manyview.Client, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    client.upload(tmp_path, "pets")
    (tmp_path / "a.jpg").write_bytes(b"changed")
    assert client.upload(tmp_path, "pets").num_images == 2


def test_pixels_that_were_compressed_with_loss_are_counted_and_named(
    client: manyview.Client, server: FakeServer
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 60, 60, 3), dtype=np.uint8)
    server.state.max_image_bytes = 9_000
    Image.new("L", (1, 1))  # the caller has imported PIL
    report = client.upload([noise[0, :20, :20], *noise], "pets").upload
    assert report is not None
    assert (report.num_stored, report.num_recompressed, report.recompressed) == (3, 2, ("00000001", "00000002"))


def test_a_changed_prefix_under_a_chosen_id_is_refused(client: manyview.Client) -> None:
    client.upload([b"a", b"b"], "pets", upload_id="mine")
    with pytest.raises(manyview.UploadChanged, match="pass another upload_id"):
        client.upload([b"a", b"other"], "pets", upload_id="mine")


def test_refused_images_are_reported_and_their_neighbors_stored(client: manyview.Client, server: FakeServer) -> None:
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


def test_if_all_images_are_refused_a_missing_data_set_is_not_created(
    client: manyview.Client, server: FakeServer, tmp_path: Path
) -> None:
    server.state.rejects[b"bad"] = "ANIMATED"
    server.state.max_image_bytes = 20
    for images in ([b"bad"], [b"x" * 21], [b"bad", b"x" * 21], [tmp_path, tmp_path / "no.jpg"]):
        (tmp_path / "bad.jpg").write_bytes(b"bad")
        with pytest.raises(manyview.UploadRejected, match="refused") as raised:
            client.upload(images, "pets")
        assert (raised.value.report.num_stored, raised.value.report.num_rejected) == (0, len(images))
        assert client.datasets() == []
    for wrong in (iter([]), iter([42])):
        with pytest.raises((ValueError, TypeError)):
            client.upload(wrong, "pets")
        assert client.datasets() == []


def test_a_data_set_that_exists_stays_if_all_images_are_refused(client: manyview.Client, server: FakeServer) -> None:
    server.state.rejects[b"bad"] = "ANIMATED"
    client.create_dataset("pets")
    report = client.upload([b"bad"], "pets").upload
    assert report is not None
    assert (report.num_rejected, report.num_found) == (1, 1)


def test_the_report_is_whole_although_the_answer_to_the_finish_was_lost(
    client: manyview.Client, server: FakeServer
) -> None:
    """The server refused all images and removed the data set that the upload had created."""
    server.state.rejects[b"bad"] = "ANIMATED"

    def loses_the_finish(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for answer in server.state.upload_images(requests, context):
            if answer.HasField("finished"):
                context.abort_with_status(_unavailable())
            yield answer

    server.reply("UploadImages", loses_the_finish)
    with pytest.raises(manyview.UploadRejected) as raised:
        client.upload([b"bad"], "pets")
    assert (raised.value.report.num_rejected, raised.value.report.num_found) == (1, 1)
    assert client.datasets() == []


def test_an_older_server_that_creates_no_data_set_is_asked_to(client: manyview.Client, server: FakeServer) -> None:
    server.fail("UploadImages", "NOT_FOUND", reason="DATASET_NOT_FOUND")
    assert client.upload([b"a"], "pets").num_images == 1
    assert len(server.requests("CreateDataset")) == 1


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
    def nobody_answers(_: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "late")

    server.fail("UploadImages", "UNAVAILABLE", after=2)
    server.reply("GetUpload", server.state.get_upload, nobody_answers, nobody_answers)
    assert client.upload(iter(many(12)), "big").num_images == 12
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
    class Status(grpc.Status):
        code, details, trailing_metadata = grpc.StatusCode.UNAVAILABLE, "died", ()

    return Status()


def test_after_a_crash_of_the_client_the_same_call_goes_on_where_it_stopped(
    client: manyview.Client, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = many(6)

    monkeypatch.setattr("manyview._uploads.batcher.LINGER_S", 600)

    def dies() -> Iterator[bytes]:
        yield from images[:5]
        wait_until(lambda: committed(server, "big", "mine") == 4)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        client.upload(dies(), "big", upload_id="mine")
    sent = len(server.requests("UploadImages"))
    report = client.upload(images, "big", upload_id="mine").upload
    assert report is not None
    assert (report.resumed_from, report.num_sent, report.num_stored) == (4, 6, 2)
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


def committed(server: FakeServer, dataset: str, upload_id: str) -> int:
    upload = server.state.uploads.get((f"datasets/{dataset}", upload_id))
    return 0 if upload is None else upload.num_images


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(3000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it never became true")


def test_images_that_wait_for_a_batch_survive_that_another_client_sent_the_first_of_them(
    client: manyview.Client, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two clients upload the same folder. One has not sent anything yet when its connection breaks."""
    monkeypatch.setattr("manyview._uploads.batcher.LINGER_S", 600)
    images = [b"a", b"b", b"c"]

    def pauses() -> Iterator[bytes]:
        yield from images
        wait_until(lambda: len(server.requests("GetUpload")) == 2)

    def breaks(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        yield next(server.state.upload_images(requests, context))
        threading.Event().wait(0.3)  # the images wait for more of them on the other side
        (other,) = server.state.uploads.values()
        other.num_images = other.committed_number = other.num_stored = 1
        other.digest = chain(b"", [EncodedImage("00000000", b"a")])
        context.abort_with_status(_unavailable())

    server.reply("UploadImages", breaks)
    report = client.upload(pauses(), "pets", upload_id="both").upload
    assert report is not None
    assert (report.resumed_from, report.num_sent) == (1, 3)
    sent = [image.data for request in server.requests("UploadImages") for image in request.batch.images]
    assert sent == [b"b", b"c"]


def test_no_more_than_the_window_is_unacknowledged_and_images_are_pulled_no_further(
    client: manyview.Client, server: FakeServer
) -> None:
    """A server that never acks: two batches come, and of the images only those, what completes the next batch, what
    waits between the two threads, and one is being handed over."""
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
    assert pulled <= 2 * 2 + 1 + 2 + 1


def test_an_image_larger_than_a_batch_has_more_time_for_its_ack(server: FakeServer) -> None:
    def acks_late(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        answers = server.state.upload_images(requests, context)
        for answer in answers:
            if answer.HasField("ack"):
                threading.Event().wait(0.6)
            yield answer

    server.reply("UploadImages", acks_late, acks_late, acks_late)
    with manyview.Client(server.target, deadlines=manyview.Deadlines(idle_s=0.4, reconnect_s=5)) as client:
        photo = b"photo" * 2_000_000
        report = client.upload([photo, photo + b"2"], "photos").upload
    assert report is not None
    assert (report.num_sent, report.num_stored) == (2, 2)
    headers = [request for request in server.requests("UploadImages") if request.HasField("header")]
    assert len(headers) == 1, "no stream was taken for a broken one"


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
    reported: list[tuple[int, int | None]] = []
    client.upload([b"a", b"b"], "pets", progress=lambda done, total: reported.append((done, total)))
    assert reported == [(2, 2)]


def test_images_of_a_source_that_pauses_are_sent_and_acknowledged_meanwhile(
    client: manyview.Client, server: FakeServer
) -> None:
    def camera() -> Iterator[bytes]:
        yield from (b"a", b"b", b"c")
        wait_until(lambda: committed(server, "pets", "camera") == 3)
        yield b"d"

    assert client.upload(camera(), "pets", upload_id="camera").num_images == 4


def test_a_pause_without_anything_to_send_does_not_need_the_server(client: manyview.Client, server: FakeServer) -> None:
    """The server ends the stream in a pause. It is asked again only when there is another image."""

    def camera() -> Iterator[bytes]:
        yield b"a"
        wait_until(lambda: committed(server, "pets", "camera") == 1)
        wait_until(lambda: bool(ended))
        asked = len(server.requests("GetUpload"))
        for _ in range(50):
            assert len(server.requests("GetUpload")) == asked
            threading.Event().wait(0.01)
        yield b"b"

    ended: list[bool] = []

    def ends(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        answers = server.state.upload_images(requests, context)
        yield next(answers)
        yield next(answers)
        ended.append(True)

    server.reply("UploadImages", ends)
    report = client.upload(camera(), "pets", upload_id="camera").upload
    assert report is not None
    assert (report.num_sent, report.num_stored, report.num_duplicates) == (2, 2, 0)


def test_a_source_may_be_bound_to_the_callers_thread(client: manyview.Client) -> None:
    """A database cursor refuses every other thread."""
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE image (data BLOB, label TEXT)")
    database.executemany("INSERT INTO image VALUES (?, ?)", [(b"a", "x"), (b"b", "y")])
    assert client.upload(database.execute("SELECT data, label FROM image"), "pets").num_images == 2


def test_an_interrupt_ends_the_upload_at_once_and_leaves_no_thread_behind(
    client: manyview.Client, server: FakeServer
) -> None:
    def never_acks(requests: Iterator[Any], _: Any) -> Iterator[Any]:
        next(requests)
        yield pb.UploadImagesResponse(opened=pb.UploadOpened(max_unacked_batches=1))
        yield from (pb.UploadImagesResponse() for _ in requests if False)

    def interrupted() -> Iterator[bytes]:
        yield b"a"
        wait_until(lambda: any(request.HasField("batch") for request in server.requests("UploadImages")))
        raise KeyboardInterrupt

    server.reply("UploadImages", never_acks)
    with pytest.raises(KeyboardInterrupt):
        client.upload(interrupted(), "pets")
    assert "manyview-upload" not in {thread.name for thread in threading.enumerate()}


def test_a_refusal_while_the_source_goes_on_is_raised_at_its_next_image_and_the_source_is_closed(
    client: manyview.Client, server: FakeServer
) -> None:
    refused = threading.Event()
    closed_by: list[threading.Thread] = []

    class Camera:
        def __iter__(self) -> Iterator[bytes]:
            try:
                yield b"a"
                refused.wait(30)
                for index in range(1000):
                    yield index.to_bytes(2, "big")
                raise AssertionError("the images were pulled although nobody sends them")
            finally:
                closed_by.append(threading.current_thread())

    def refuses(requests: Iterator[Any], _: Any) -> Iterator[Any]:
        next(requests)
        yield pb.UploadImagesResponse(opened=pb.UploadOpened(max_unacked_batches=1))
        refused.set()
        yield pb.UploadImagesResponse(error={"code": 10, "message": "a newer stream", "reason": "UPLOAD_FENCED"})

    server.reply("UploadImages", refuses)
    with pytest.raises(manyview.Aborted, match="a newer stream"):
        client.upload(Camera(), "pets")
    assert closed_by == [threading.current_thread()]
