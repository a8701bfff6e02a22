"""Faults of networks: resets, silence, flipped bits, a long and narrow path (F6, F11, F40, F60).

Clients reach the server through a proxy. A job trains all the while, and others use the server without the proxy.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import manyview
from manyview._transport import channel
from manyview.v1 import dataset_service_pb2 as datasets
from manyview_server import failpoints
from support.clients import actors, wire
from support.clients.actors import Actor
from support.faults.evidence import Evidence, dataset_evidence, job_evidence, num_open_files
from support.faults.history import History, read
from support.faults.proxy import Proxy
from support.faults.validator import image_id_of, validate
from support.service.harness import SMALL_JOB, ServerProcess, jpeg, wait_until, write_photos
from support.service.prepared import queue_job
from support.soak.rounds import rounds, soaking

pytestmark = pytest.mark.timeout(240)

KEEPALIVE_S, ANSWER_S = 1.0, 3.0
SETTINGS = (
    *("--max-batch-images", "8", "--heartbeat-s", "0.5"),
    *("--keepalive-s", str(KEEPALIVE_S), "--keepalive-timeout-s", str(ANSWER_S)),
)
JOB = SMALL_JOB | {
    "method": "moco",
    "epochs": 100_000,
    "checkpoint_every_epochs": 16,
    "evaluation": {"knn_every_epochs": 0},
}
"""A job that does not end by itself, with an event for each step."""
NUM_RESETS = 60 if soaking() else 8
NUM_IMAGES = 12 * NUM_RESETS
"""Enough to last until the last reset: the uploader sends one batch of eight in at least 0.1 s."""
PATIENCE_S = 60.0
MODEL = "backbones/resnet9"

Report = Callable[[str, object], None]


class Stage:
    """A server on which one job trains."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        server.start()
        self.client = server.client()
        self.job = self.client.job("marathon")
        wait_until(lambda: self.job.refresh().state == "RUNNING", "the job trains", PATIENCE_S)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("network")
    queue_job(folder / "data", write_photos(folder / "training", 96, seed=1), "marathon", JOB)
    (folder / "failpoints").mkdir()
    # At most ten steps a second: the cores are for the clients.
    (folder / "failpoints" / "trainer.step").write_text("sleep 0.1 always")
    server = ServerProcess(folder / "data", *SETTINGS, catalogue=catalogue)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(failpoints.VARIABLE, str(folder / "failpoints"))
            stage = Stage(server)
        yield stage
        stage.client.close()
    finally:
        server.stop()
    wait_until(lambda: not server.processes(), "every process of the server is gone", 10)


@pytest.fixture
def proxy(stage: Stage) -> Iterator[Proxy]:
    with Proxy(stage.server.address) as made:
        yield made


@pytest.fixture
def quick_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of this process notice a dead connection within 4 s instead of 40."""
    quick = {"grpc.keepalive_time_ms": 1_000, "grpc.http2.ping_timeout_ms": 3_000}
    monkeypatch.setattr(channel, "_OPTIONS", tuple((name, quick.get(name, value)) for name, value in channel._OPTIONS))


@pytest.mark.parametrize("seed", rounds(1))
def test_connections_that_are_reset_again_and_again_cost_neither_image_nor_event_nor_row(
    stage: Stage, proxy: Proxy, tmp_path: Path, record_property: Report, seed: int
) -> None:
    random_ = random.Random(seed)
    name = f"resets-{seed}"
    photos = write_photos(tmp_path / name, NUM_IMAGES, seed=seed + 100)
    wanted = stage.client.embed(photos[:12], model=MODEL, batch_size=3).array
    uploader = Actor("uploader", "uploader", proxy.address, tmp_path, name, str(tmp_path / name), "0.1")
    subscriber = Actor("subscriber", "subscriber", proxy.address, tmp_path, stage.job.id)
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            uploader.start()
            subscriber.start()
            embedded = pool.submit(embed_until, done, proxy.address, photos[:12], wanted)
            wait_until(lambda: bool(uploader.history("acked")), "the upload has begun", PATIENCE_S)
            wait_until(lambda: bool(subscriber.history("event")), "the subscriber sees events", PATIENCE_S)
            num_cut = 0
            for _ in range(NUM_RESETS):
                time.sleep(random_.uniform(0.02, 0.4))
                if random_.random() < 0.4:  # acknowledgements get lost, not only requests
                    proxy.swallow_replies()
                    time.sleep(random_.uniform(0, 0.2))
                num_cut += proxy.reset()
            uploader.finish(PATIENCE_S)
            last = stage.job.refresh().last_sequence
            wait_until(lambda: subscriber.history("event")[-1]["sequence"] >= last, f"event {last} is seen", PATIENCE_S)
            done.set()
            num_calls = embedded.result(PATIENCE_S)
        finally:
            done.set()
            for actor in (uploader, subscriber):
                actor.close()
    histories = {actor.name: actor.history() for actor in (uploader, subscriber)}
    dataset = dataset_evidence(stage.client, stage.server.data_dir, name)
    job = job_evidence(stage.client, stage.job.id)
    verdict = validate(histories, Evidence(datasets={name: dataset}, jobs={stage.job.id: job}))
    verdict.assert_clean()
    assert dataset.num_images == NUM_IMAGES
    assert job.state == "RUNNING"
    assert num_cut >= NUM_RESETS, "most of them met somebody"
    record_property("connections_reset", num_cut)
    record_property("streams_of_embeddings", num_calls)
    for figure, value in verdict.figures().items():
        record_property(figure, value)


def embed_until(done: threading.Event, address: str, photos: Sequence[Path], wanted: np.ndarray) -> int:
    """Embed the photos as a stream again and again; every row must come, and be the right one. How often it was."""
    calls = 0
    with manyview.Client(address) as client:
        while not done.is_set() or calls == 0:
            np.testing.assert_allclose(client.embed(photos, model=MODEL, batch_size=3).array, wanted, atol=1e-5)
            calls += 1
            done.wait(0.1)
    return calls


def test_a_half_open_client_is_let_go_in_time_and_nobody_else_notices(
    stage: Stage, proxy: Proxy, record_property: Report
) -> None:
    stage.client.upload([jpeg(seed=1)], dataset="half-open")
    with manyview.Client(proxy.address) as client, client._rpcs.upload_images() as stream:
        stream.send(wire.header("half-open", "u"))
        assert stream.receive() is not None
        stream.send(wire.batch(1, wire.image(jpeg(seed=2))))
        assert stream.receive() is not None
        # Nothing is said for longer than some pings: they go on, and the connection lives.
        time.sleep(4 * KEEPALIVE_S)
        (link,) = proxy.links
        assert link.server_ended_at is None
        files = num_open_files(stage.server)
        proxy.go_half_open()
        gone_at = time.monotonic()
        waits_s = [timed(lambda: stage.client.dataset("half-open"))]
        while link.server_ended_at is None:
            assert time.monotonic() - gone_at < 30, "the server keeps the connection"
            waits_s.append(timed(lambda: stage.client.dataset("half-open")))
            time.sleep(0.05)
    noticed_s = link.server_ended_at - gone_at
    assert noticed_s < KEEPALIVE_S + ANSWER_S + 3
    assert max(waits_s) < 2
    wait_until(lambda: num_open_files(stage.server) < files, "its descriptor is closed", 5)
    upload = datasets.GetUploadRequest(dataset="datasets/half-open", upload_id="u")
    assert stage.client._rpcs.get_upload(upload).upload.committed_number == 1
    record_property("max_noticed_after_ms", round(1000 * noticed_s))
    record_property("max_wait_of_others_ms", round(1000 * max(waits_s)))


def timed(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


@pytest.mark.usefixtures("quick_pings")
def test_clients_notice_a_dead_path_by_themselves_and_go_on_when_there_is_another(
    stage: Stage, proxy: Proxy, tmp_path: Path
) -> None:
    """The path is gone for longer than any call may take."""
    # Far more than the SDK pulls ahead of their acknowledgements: the upload must not be over when the path dies.
    photos = write_photos(tmp_path / "photos", 480, seed=7)
    deadlines = manyview.Deadlines(unary_s=2, embed_s=20, idle_s=20, reconnect_s=60)
    uploads, events = (History(tmp_path / name) for name in ("uploads", "events"))
    stop = threading.Event()

    def subscribe() -> None:
        with manyview.Client(proxy.address, deadlines=deadlines) as client:
            for event in client.job(stage.job.id).metrics():
                events.log_event(stage.job.id, event)
                if stop.is_set():
                    return

    def upload() -> None:
        with manyview.Client(proxy.address, deadlines=deadlines) as client:
            actors.upload(client, uploads, "dead-path", str(tmp_path / "photos"), "0.1")

    with ThreadPoolExecutor(2) as pool:
        try:
            uploading, subscribing = pool.submit(upload), pool.submit(subscribe)
            wait_until(lambda: len(read(tmp_path / "uploads", "acked")) >= 16, "the upload has begun", PATIENCE_S)
            wait_until(lambda: bool(read(tmp_path / "events")), "the subscriber sees events", PATIENCE_S)
            assert proxy.go_half_open() == 2
            dead = proxy.open_links
            time.sleep(6)
            assert not uploading.done()
            proxy.heal()
            uploading.result(PATIENCE_S)
            last = stage.job.refresh().last_sequence
            wait_until(lambda: read(tmp_path / "events")[-1]["sequence"] >= last, f"event {last} is seen", PATIENCE_S)
        finally:
            stop.set()
        subscribing.result(PATIENCE_S)
    assert all(link.client_ended_at and link.server_ended_at for link in dead)
    dataset = dataset_evidence(stage.client, stage.server.data_dir, "dead-path")
    job = job_evidence(stage.client, stage.job.id)
    histories = {name: read(tmp_path / name) for name in ("uploads", "events")}
    validate(histories, Evidence(datasets={"dead-path": dataset}, jobs={stage.job.id: job})).assert_clean()
    assert dataset.num_images == len(photos)


def test_a_long_and_narrow_path_takes_its_time_and_loses_nothing(
    stage: Stage, proxy: Proxy, tmp_path: Path, record_property: Report
) -> None:
    """1 Mbit/s and 150 ms each way: what is on its way takes longer than the server waits for the answer to a ping."""
    photos = [tmp_path / "photos" / f"{number:02}.jpg" for number in range(60)]
    photos[0].parent.mkdir()
    for number, photo in enumerate(photos):
        photo.write_bytes(jpeg(96, seed=number))
    num_bytes = sum(photo.stat().st_size for photo in photos)
    proxy.delay_s, proxy.bytes_per_s = 0.15, 125_000
    history = History(tmp_path / "uploader")
    with manyview.Client(proxy.address) as client:
        took_s = timed(lambda: actors.upload(client, history, "narrow", str(tmp_path / "photos")))
        waits_s = [timed(client.health) for _ in range(3)]
    dataset = dataset_evidence(stage.client, stage.server.data_dir, "narrow")
    validate({"uploader": read(tmp_path / "uploader")}, Evidence(datasets={"narrow": dataset})).assert_clean()
    assert dataset.num_images == len(photos)
    assert took_s > num_bytes / 125_000
    assert len(proxy.links) == 1, "the connection was never given up"
    assert min(waits_s) > 0.3
    record_property("max_kilobytes_per_s", round(num_bytes / took_s / 1000))


@pytest.mark.usefixtures("quick_pings")
def test_calls_on_a_silent_path_end_with_an_error_in_time(stage: Stage, proxy: Proxy) -> None:
    deadlines = manyview.Deadlines(unary_s=1, embed_s=1, idle_s=1, reconnect_s=2)
    connected = threading.Barrier(len(CALLS) + 1)
    cut = threading.Event()

    def meet_silence(call: Call) -> tuple[manyview.ManyviewError | None, float]:
        """The error that the call ended with, and after how many seconds."""
        with manyview.Client(proxy.address, deadlines=deadlines) as client:
            job = client.job(stage.job.id)
            client.server_info()
            connected.wait(PATIENCE_S)
            cut.wait(PATIENCE_S)
            began = time.monotonic()
            try:
                call(client, job)
            except manyview.ManyviewError as error:
                return error, time.monotonic() - began
            return None, time.monotonic() - began

    with ThreadPoolExecutor(len(CALLS)) as pool:
        pending = {what: pool.submit(meet_silence, call) for what, call in CALLS.items()}
        connected.wait(PATIENCE_S)
        assert proxy.go_half_open() == len(CALLS)
        cut.set()
        ends = {what: future.result(PATIENCE_S) for what, future in pending.items()}
    assert all(isinstance(error, manyview.DeadlineExceeded | manyview.Unavailable) for error, _ in ends.values()), ends
    assert max(took_s for _, took_s in ends.values()) < 15, ends


Call = Callable[[manyview.Client, manyview.Job], object]
CALLS: dict[str, Call] = {
    "one answer": lambda client, _: client.dataset("training"),
    "health": lambda client, _: client.health(),
    "an upload": lambda client, _: client.upload([jpeg()], dataset="silent"),
    "a batch to embed": lambda client, _: client.embed([jpeg()], model=MODEL),
    "a stream to embed": lambda client, _: client.embed([jpeg(seed=n) for n in range(9)], model=MODEL, batch_size=3),
    "events": lambda _, job: [*job.metrics()],
    "log lines": lambda _, job: [*job.logs(follow=True)],
    "waiting": lambda _, job: job.wait(timeout_s=2),
}


def test_a_flipped_bit_costs_the_image_that_it_hits_and_no_other(stage: Stage, proxy: Proxy, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 24, seed=3)
    marker = b"here is a bit to flip"
    hit = photos[10]
    hit.write_bytes(hit.read_bytes() + 64 * marker)  # decoders do not look behind the end of an image
    proxy.flip_at(marker)
    with manyview.Client(proxy.address) as client:
        report = client.upload(tmp_path / "photos", dataset="flipped").upload
    assert report is not None
    assert proxy.flips == 1
    (refused,) = report.rejected
    assert refused.key == hit.relative_to(tmp_path / "photos").as_posix()
    assert refused.error.reason == "CHECKSUM_MISMATCH"
    assert report.num_stored == 23
    evidence = dataset_evidence(stage.client, stage.server.data_dir, "flipped")
    history = [acked("flipped", photo) for photo in photos if photo != hit]
    validate({"client": history}, Evidence(datasets={"flipped": evidence})).assert_clean()
    assert evidence.num_images == 23


def acked(dataset: str, photo: Path) -> dict[str, str]:
    sha256 = wire.image(photo.read_bytes()).sha256.hex()
    return {"op": "acked", "dataset": dataset, "key": photo.name, "sha256": sha256}


@pytest.mark.parametrize("seed", rounds(1))
def test_bits_that_flip_anywhere_never_bring_in_an_image_that_nobody_sent(
    stage: Stage, proxy: Proxy, tmp_path: Path, record_property: Report, seed: int
) -> None:
    """Headers, numbers, names and frames are hit too. Calls may fail with an error, and the server keeps running."""
    name = f"noise-{seed}"
    photos = [tmp_path / "photos" / f"{number:02}.jpg" for number in range(40)]
    photos[0].parent.mkdir()
    for number, photo in enumerate(photos):
        photo.write_bytes(jpeg(48, seed=100 * seed + number))
    stage.client.upload(photos[:1], dataset=name)
    random_ = random.Random(seed)
    failures = 0
    for attempt in range(6):
        # Flips hit frames and headers, which are a small part of the bytes, and image data.
        proxy.flip_at_random(random_, 300 * 4**attempt)
        with manyview.Client(proxy.address, deadlines=manyview.Deadlines(unary_s=3, idle_s=5, reconnect_s=3)) as client:
            try:
                client.upload(photos, dataset=name, upload_id=f"noisy-{attempt}")
            except manyview.ManyviewError:
                failures += 1
        proxy.reset()
    proxy.flip_at_random(random_, 0)
    sent = [acked(name, photo) for photo in photos]
    before = dataset_evidence(stage.client, stage.server.data_dir, name)
    assert {image.image_id for image in before.listed} <= {image_id_of(record["sha256"]) for record in sent}
    stage.client.upload(photos, dataset=name, upload_id="clean")
    evidence = dataset_evidence(stage.client, stage.server.data_dir, name)
    validate({"client": sent}, Evidence(datasets={name: evidence})).assert_clean()
    assert evidence.num_images == len(photos)
    assert stage.client.health() == "SERVING"
    record_property("bits_flipped", proxy.flips)
    record_property("uploads_failed", failures)
