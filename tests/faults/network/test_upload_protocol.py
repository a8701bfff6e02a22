"""Numbered batches, acks and sessions against a real server: repeated, lost, out of order, and two at once (F7 to F10).

The oracle is `upload_model.py`; the store alone is held against it in `tests/server/store/images/test_uploads.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import manyview
from manyview._transport.stream import Stream
from manyview.v1 import dataset_service_pb2 as pb
from manyview.v1 import types_pb2
from support.clients import wire
from support.clients.upload_model import UploadModel
from support.faults.evidence import Evidence, dataset_evidence
from support.faults.proxy import Proxy
from support.faults.validator import validate
from support.service.harness import NO_FORK_SERVER, ServerProcess, jpeg, wait_until, write_photos
from support.soak.rounds import rounds, soaking

pytestmark = pytest.mark.timeout(120)

NUM_STEPS = 200 if soaking() else 80
NUM_CLIENTS = 8
PATIENCE_S = 30.0
REFUSED = b"GIF89a is no format that is taken"

Report = Callable[[str, object], None]
Session = Stream[pb.UploadImagesRequest | bytes, pb.UploadImagesResponse]


def image(number: int) -> types_pb2.Image:
    """The image of a number; negative ones are refused."""
    data = jpeg(16, seed=number) if number >= 0 else REFUSED + str(number).encode()
    return wire.image(data, f"{number}.jpg", f"label{number % 3}")


def batch(number: int, images: Sequence[int]) -> pb.UploadImagesRequest:
    return wire.batch(number, *map(image, images))


def digest_of(images: Sequence[int]) -> bytes:
    digest = b""
    for number in images:
        digest = hashlib.sha256(digest + image(number).sha256).digest()
    return digest


def judge(server: ServerProcess, client: manyview.Client, dataset: str, stored: Sequence[int]) -> None:
    """V1, V2 and V6, and that nothing else is stored than these images."""
    acked = [{"op": "acked", "dataset": dataset, "key": f"{n}", "sha256": image(n).sha256.hex()} for n in stored]
    found = dataset_evidence(client, server.data_dir, dataset)
    validate({"client": acked}, Evidence(datasets={dataset: found})).assert_clean()
    assert found.num_images == len(set(stored))


def where_it_stands(client: manyview.Client, dataset: str) -> pb.Upload:
    return client._rpcs.get_upload(pb.GetUploadRequest(dataset=f"datasets/{dataset}", upload_id="u")).upload


def next_of(stream: Session, kind: str) -> Any:
    message = stream.receive(PATIENCE_S)
    assert message is not None
    assert message.WhichOneof("payload") == kind, message
    return getattr(message, kind)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> Iterator[ServerProcess]:
    """One running server for all tests here."""
    shared = ServerProcess(tmp_path_factory.mktemp("uploads") / "data", *NO_FORK_SERVER, catalogue=catalogue)
    shared.start()
    yield shared
    shared.stop()
    wait_until(shared.is_gone, "every process of the server is gone", 10)


@pytest.fixture
def dataset(client: manyview.Client, request: pytest.FixtureRequest) -> str:
    """A new data set."""
    name = f"d-{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"
    with contextlib.suppress(manyview.AlreadyExists):
        client.create_dataset(name)
    return name


@pytest.fixture
def open_stream(client: manyview.Client, dataset: str) -> Iterator[Callable[..., Session]]:
    """Open streams on the upload "u" of that data set, by this client or another."""
    streams: list[Session] = []

    def open_stream(digest: bytes = b"", by: manyview.Client = client) -> Session:
        streams.append(by._rpcs.upload_images())
        streams[-1].send(wire.header(dataset, "u", digest))
        return streams[-1]

    yield open_stream
    for stream in streams:
        stream.close()


@pytest.mark.parametrize("seed", rounds(1))
def test_batches_whose_acks_were_lost_are_acknowledged_in_the_same_words_and_stored_once(
    server: ServerProcess, client: manyview.Client, dataset: str, open_stream: Callable[..., Session], seed: int
) -> None:
    random_ = random.Random(seed)
    # Some twice within a batch, some again in a later one, some refused.
    made = [[random_.randrange(-3, 20) for _ in range(random_.randint(1, 6))] for _ in range(8)]
    num_seen = random_.randrange(1, len(made))
    with Proxy(server.address) as proxy, manyview.Client(proxy.address) as far:
        stream = open_stream(by=far)
        next_of(stream, "opened")
        seen = []
        for number, images in enumerate(made[:num_seen], start=1):
            stream.send(batch(number, images))
            seen.append(next_of(stream, "ack"))
        proxy.swallow_replies()
        for number, images in enumerate(made[num_seen:], start=num_seen + 1):
            stream.send(batch(number, images))
        wait_until(lambda: where_it_stands(client, dataset).committed_number == len(made), "all is committed")
        num_images = client.dataset(dataset).num_images
        assert proxy.reset() == 1
        with pytest.raises(manyview.Unavailable):
            stream.receive(PATIENCE_S)
    told = []
    for _ in range(2):
        stream = open_stream(digest_of([number for images in made for number in images]))
        assert next_of(stream, "opened").upload.committed_number == len(made)
        for number, images in enumerate(made, start=1):
            stream.send(batch(number, images))
        told.append([next_of(stream, "ack") for _ in made])
    assert told[0] == told[1]
    assert told[0][:num_seen] == seen
    model = UploadModel()
    assert [outcomes(ack) for ack in told[0]] == [model.append(n, images) for n, images in enumerate(made, start=1)]
    assert client.dataset(dataset).num_images == num_images == len(model.stored)
    stream.send(wire.finish(model.num_images))
    assert next_of(stream, "finished").upload.num_images == model.num_images
    judge(server, client, dataset, sorted(model.stored))


def outcomes(ack: pb.BatchAck) -> list[str]:
    return [pb.ImageResult.Outcome.Name(result.outcome).removeprefix("OUTCOME_") for result in ack.results]


@pytest.mark.parametrize("seed", rounds(1))
def test_whatever_comes_in_whatever_order_is_answered_as_the_protocol_says(
    server: ServerProcess,
    client: manyview.Client,
    dataset: str,
    open_stream: Callable[..., Session],
    record_property: Report,
    seed: int,
) -> None:
    """Batches that are due, repeated, skipped or changed, wrong finishes, streams cut off, taken over, refused:
    the answers of a walk of many steps are those of the model."""
    random_ = random.Random(seed)
    walk = Walk(UploadModel(), open_stream, random_)
    for _ in range(NUM_STEPS):
        step = random_.choices([*STEPS], [*STEPS.values()])[0]
        getattr(walk, step)()
    walk.finish()
    walk.due()
    judge(server, client, dataset, sorted(walk.model.stored))
    record_property("steps", NUM_STEPS)
    record_property("committed_after_the_client_left", walk.num_committed_late)


STEPS = {
    "due": 6,
    "several": 3,
    "again": 3,
    "gap": 1,
    "changed": 1,
    "miscounted": 1,
    "reopen": 2,
    "cut": 2,
    "refused": 1,
}
"""The weight with which each is drawn."""


class Walk:
    """One upload and its streams, beside the model of it. Each method is a step."""

    def __init__(self, model: UploadModel, open_stream: Callable[..., Session], random_: random.Random) -> None:
        self.model = model
        self._open_stream = open_stream
        self._random = random_
        self.num_committed_late = 0
        self.stream = self._opened()

    def finish(self) -> None:
        """The right count; afterwards nothing new is taken."""
        self.stream.send(wire.finish(self.model.num_images))
        self._compare(next_of(self.stream, "finished").upload)
        assert self.model.finish(self.model.num_images) == "FINISHED"
        self.stream = self._opened()

    def due(self) -> None:
        """The batch that is expected."""
        self._send(len(self.model.committed) + 1, self._some())

    def several(self) -> None:
        """Some batches before the first answer is read."""
        first = len(self.model.committed) + 1
        made = [self._some() for _ in range(self._random.randint(2, 8))]
        for number, images in enumerate(made, start=first):
            self.stream.send(batch(number, images))
        for number, images in enumerate(made, start=first):
            ack = next_of(self.stream, "ack")
            assert (ack.number, outcomes(ack)) == (number, self.model.append(number, images))

    def again(self) -> None:
        """A batch that was committed before."""
        if self.model.committed:
            number = self._random.randint(1, len(self.model.committed))
            self._send(number, self.model.committed[number - 1][0])

    def gap(self) -> None:
        """One that is not due yet."""
        self._send(len(self.model.committed) + self._random.randint(2, 9), self._some())

    def changed(self) -> None:
        """A committed number with an image that nobody has seen."""
        if self.model.committed:
            self._send(self._random.randint(1, len(self.model.committed)), [10_000])

    def miscounted(self) -> None:
        """A finish with another count."""
        self.stream.send(wire.finish(self.model.num_images + self._random.choice([-1, 1])))
        self._failed("FINISH_MISMATCH")

    def reopen(self) -> None:
        """Another stream takes over, and the earlier one gets an error."""
        before, self.stream = self.stream, self._opened()
        assert next_of(before, "error").reason == "UPLOAD_FENCED"

    def cut(self) -> None:
        """The client goes away with a batch on its way, which is committed or is not, and comes back."""
        number, images = len(self.model.committed) + 1, self._some()
        self.stream.send(batch(number, images))
        time.sleep(self._random.choice([0, 0, 0.01]))
        self.stream.close()
        self.stream = self._open_stream()
        upload = next_of(self.stream, "opened").upload
        if upload.committed_number == number:
            self.model.append(number, images)
            self.num_committed_late += 1
        self._compare(upload)

    def refused(self) -> None:
        """A stream whose client holds other images changes nothing for the one that is there."""
        stream = self._open_stream(digest_of([*self.model.sent, 77]))
        assert next_of(stream, "error").reason == "UPLOAD_CHANGED"

    def _some(self) -> list[int]:
        return [self._random.randrange(-3, 40) for _ in range(self._random.randint(1, 4))]

    def _send(self, number: int, images: list[int]) -> None:
        expected = self.model.append(number, images)
        self.stream.send(batch(number, images))
        if isinstance(expected, str):
            self._failed(expected)
        else:
            ack = next_of(self.stream, "ack")
            assert (ack.number, outcomes(ack)) == (number, expected)

    def _failed(self, reason: str) -> None:
        error = next_of(self.stream, "error")
        assert error.reason == reason
        if reason == "SEQUENCE_GAP":
            assert error.metadata["expected"] == str(len(self.model.committed) + 1)
        self.stream = self._opened()

    def _opened(self) -> Session:
        stream = self._open_stream(digest_of(self.model.sent))
        self._compare(next_of(stream, "opened").upload)
        return stream

    def _compare(self, upload: pb.Upload) -> None:
        assert (upload.committed_number, upload.num_images) == (len(self.model.committed), self.model.num_images)
        assert upload.digest == digest_of(self.model.sent)


@pytest.mark.parametrize("seed", rounds(2))
def test_a_second_stream_takes_the_upload_over_and_the_first_is_told_soon(
    server: ServerProcess,
    client: manyview.Client,
    dataset: str,
    open_stream: Callable[..., Session],
    record_property: Report,
    seed: int,
) -> None:
    """The first one has batches on its way or says nothing. What it brought counts as far as it was acknowledged."""
    random_ = random.Random(seed)
    first = open_stream()
    next_of(first, "opened")
    made = [[4 * number, 4 * number + 1] for number in range(1, 9)]
    num_sent = random_.randrange(len(made)) if seed % 2 else 0
    for number, images in enumerate(made[:num_sent], start=1):
        first.send(batch(number, images))
    with manyview.Client(server.address) as other:
        second = open_stream(by=other)
        committed = next_of(second, "opened").upload.committed_number
        began = time.monotonic()
        answers = []
        while (message := first.receive(PATIENCE_S)) is not None and not message.HasField("error"):
            answers.append(message.ack.number)
        told_s = time.monotonic() - began
        assert message is not None
        assert message.error.reason == "UPLOAD_FENCED"
        assert told_s < 2
        assert answers == list(range(1, committed + 1)), "every batch of the first is in before the second, or never"
        for number, images in enumerate(made[committed:], start=committed + 1):
            first.send(batch(number, [1000 + number]))
            second.send(batch(number, images))
            ack = next_of(second, "ack")
            assert (ack.number, set(outcomes(ack))) == (number, {"STORED"})
        second.send(wire.finish(2 * len(made)))
        assert next_of(second, "finished").dataset.num_images == 2 * len(made)
    judge(server, client, dataset, [number for images in made for number in images])
    record_property("max_told_after_ms", round(1000 * told_s))


def test_the_same_command_run_twice_at_once_stores_every_image_once(
    server: ServerProcess, client: manyview.Client, tmp_path: Path
) -> None:
    """Both name the upload alike: the later one takes it over, the earlier one ends with an error that says so."""
    photos = write_photos(tmp_path / "photos", 1000, seed=4)
    start = threading.Barrier(2)

    def upload() -> manyview.Dataset | manyview.ManyviewError:
        with manyview.Client(server.address) as own:
            own.server_info()
            start.wait(PATIENCE_S)
            try:
                return own.upload(tmp_path / "photos", dataset="twice")
            except manyview.ManyviewError as error:
                return error

    with ThreadPoolExecutor(2) as pool:
        ends = [future.result(PATIENCE_S) for future in [pool.submit(upload), pool.submit(upload)]]
    failed = [end for end in ends if isinstance(end, manyview.ManyviewError)]
    assert len(failed) < 2
    assert all(error.reason == "UPLOAD_FENCED" for error in failed)
    client.upload(tmp_path / "photos", dataset="twice")
    found = dataset_evidence(client, server.data_dir, "twice")
    sha256s = [hashlib.sha256(photo.read_bytes()).hexdigest() for photo in photos]
    acked = [{"op": "acked", "dataset": "twice", "key": sha256, "sha256": sha256} for sha256 in sha256s]
    validate({"client": acked}, Evidence(datasets={"twice": found})).assert_clean()
    assert found.num_images == len(photos)


@pytest.mark.parametrize("seed", rounds(1))
def test_an_image_that_many_clients_send_at_once_is_stored_once_and_acknowledged_to_each(
    server: ServerProcess, client: manyview.Client, dataset: str, seed: int
) -> None:
    start = threading.Barrier(NUM_CLIENTS)
    data = image(seed).data

    def upload(number: int) -> manyview.UploadReport:
        with manyview.Client(server.address) as own:
            own.server_info()
            start.wait(PATIENCE_S)
            report = own.upload([data], dataset=dataset, upload_id=f"client-{number}").upload
            assert report is not None
            return report

    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        reports = list(pool.map(upload, range(NUM_CLIENTS)))
    assert sorted((report.num_stored, report.num_duplicates) for report in reports) == [(0, 1)] * 7 + [(1, 0)]
    judge(server, client, dataset, [seed])
