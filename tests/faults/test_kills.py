"""SIGKILL of the client, the server and the trainer, while images come in and while a job trains.

Promises: an acknowledged image is never lost nor stored twice; a subscriber that reconnects sees every sequence number
once; the server serves again; nothing keeps running. What was acknowledged is known from the client's side alone.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import manyview
from harness import SMALL_JOB, ServerProcess, wait_until, write_photos
from rounds import rounds

NewServer = Callable[..., ServerProcess]
ROUNDS = rounds(2)
NUM_IMAGES = 700

UPLOADER = """
import os, sys, manyview
address, folder, acknowledged = sys.argv[1:]
log = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def progress(done, total):
    os.write(log, f"{done}\\n".encode())
with manyview.Client(address) as client:
    client.upload(folder, dataset="photos", progress=progress)
"""

SUBSCRIBER = """
import os, sys, manyview
address, job, after, seen = sys.argv[1:]
log = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
with manyview.Client(address) as client:
    for event in client.job(job).metrics(after=int(after)):
        os.write(log, f"{event.sequence}\\n".encode())
"""


def numbers(path: Path) -> list[int]:
    """The whole lines of a file of numbers."""
    text = path.read_text() if path.exists() else ""
    return [int(line) for line in text[: text.rfind("\n") + 1].split()]


def assert_holds_exactly(client: manyview.Client, dataset: str, folder: Path) -> None:
    """The data set holds each file of the folder once, under its own key, and its size is right."""
    stored = list(client.images(dataset))
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.jpg")}
    assert sorted(image.key for image in stored) == sorted(files)
    for image in stored:
        digest = hashlib.sha256(files[image.key]).digest()
        assert image.image_id == f"{int.from_bytes(digest[:8]) >> 1:016x}"
        assert image.num_bytes == len(files[image.key])


def assert_readable(server: ServerProcess, folder: Path) -> None:
    """Every file's bytes stand in a shard, as any tar reader sees them."""
    wanted = {hashlib.sha256(path.read_bytes()).digest() for path in folder.rglob("*.jpg")}
    found: list[bytes] = []
    for shard in server.data_dir.glob("datasets/*/*.tar"):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    file = tar.extractfile(member)
                    assert file is not None
                    found.append(hashlib.sha256(file.read()).digest())
    assert wanted <= set(found)


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_killed_client_loses_no_acknowledged_image_and_its_next_run_goes_on(
    new_server: NewServer, tmp_path: Path, seed: int
) -> None:
    server, folder = new_server(), tmp_path / "photos"
    write_photos(folder, NUM_IMAGES, seed=seed)
    server.start()
    acknowledged = tmp_path / "acknowledged"
    command = [sys.executable, "-c", UPLOADER, server.address, str(folder), str(acknowledged)]
    uploader = subprocess.Popen(command)
    threshold = random.Random(seed).randrange(1, NUM_IMAGES // 2)
    wait_until(lambda: max(numbers(acknowledged), default=0) >= threshold, f"{threshold} images acknowledged")
    uploader.kill()
    uploader.wait()
    with server.client() as client:
        assert client.dataset("photos").num_images >= max(numbers(acknowledged))
        report = client.upload(folder, dataset="photos").upload
        assert report.num_sent == report.num_stored == NUM_IMAGES
        assert_holds_exactly(client, "photos", folder)
    assert_readable(server, folder)


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_killed_server_loses_no_acknowledged_image_and_the_upload_goes_on_by_itself(
    new_server: NewServer, tmp_path: Path, seed: int
) -> None:
    server, folder = new_server(), tmp_path / "photos"
    write_photos(folder, NUM_IMAGES, seed=seed)
    server.start()
    acknowledged, failures = [0], []

    def upload() -> None:
        try:
            with server.client() as client:
                client.upload(folder, "photos", progress=lambda done, _: acknowledged.append(done))
        except manyview.ManyviewError as error:
            failures.append(error)

    uploader = threading.Thread(target=upload)
    uploader.start()
    threshold = random.Random(seed).randrange(1, NUM_IMAGES // 2)
    wait_until(lambda: acknowledged[-1] >= threshold, f"{threshold} images acknowledged")
    server.kill()
    before = acknowledged[-1]
    server.start()
    with server.client() as client:
        assert client.health() == "SERVING"
        assert client.dataset("photos").num_images >= before
        uploader.join(30)
        assert not uploader.is_alive()
        assert not failures
        assert_holds_exactly(client, "photos", folder)
    assert_readable(server, folder)


@pytest.mark.parametrize("seed", ROUNDS)
@pytest.mark.parametrize("victim", ["trainer", "server"])
def test_a_job_outlives_its_trainer_and_its_server_and_no_event_is_missing_or_repeated(
    new_server: NewServer, tmp_path: Path, seed: int, victim: str
) -> None:
    server, folder = new_server(), tmp_path / "photos"
    write_photos(folder, 96, seed=seed)
    server.start()
    events: list[manyview.Event] = []
    with server.client() as client:
        dataset = client.upload(folder, dataset="photos")
        job = client.train(dataset, "moco", epochs=16, config=SMALL_JOB)

        def subscribe() -> None:
            with server.client() as own:
                for event in own.job(job.id).metrics():
                    events.append(event)

        subscriber = threading.Thread(target=subscribe)
        subscriber.start()
        kill_at = random.Random(seed).randrange(8, 40)
        wait_until(lambda: any(event.step >= kill_at for event in events), f"step {kill_at}", 50)
        trainers = server.workers("trainer")
        assert len(trainers) == 1
        if victim == "trainer":
            os.kill(trainers[0], signal.SIGKILL)
        else:
            server.kill()
            wait_until(lambda: not server.processes(), "the trainer dies with the server", 5)
            server.start()
        subscriber.join(50)
        assert not subscriber.is_alive()
        info = job.wait(timeout_s=30)
        assert info.attempt == 2
        assert client.health() == "SERVING"
        assert [event.sequence for event in events] == list(range(1, info.last_sequence + 1))
        rollback = next(event for event in events if event.kind == "rollback")
        rows = job.history(["loss"]).rows
        assert [row["step"] for row in rows] == list(range(1, info.progress.num_steps + 1)), "each step counts once"
        assert rollback.attempt == 2


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_killed_subscriber_takes_up_at_its_cursor_and_the_job_does_not_notice(
    new_server: NewServer, tmp_path: Path, seed: int
) -> None:
    server, folder = new_server(), tmp_path / "photos"
    write_photos(folder, 96, seed=seed)
    server.start()
    seen = tmp_path / "seen"
    with server.client() as client:
        job = client.train(client.upload(folder, dataset="photos"), epochs=12, config=SMALL_JOB)
        for _ in range(2):
            last = max(numbers(seen), default=0)
            command = [sys.executable, "-c", SUBSCRIBER, server.address, job.id, str(last), str(seen)]
            subscriber = subprocess.Popen(command)
            wanted = last + random.Random(seed).randrange(3, 15)
            wait_until(lambda wanted=wanted: max(numbers(seen), default=0) >= wanted, f"event {wanted}")
            subscriber.kill()
            subscriber.wait()
        info = job.wait(timeout_s=40)
        rest = [event.sequence for event in job.metrics(after=max(numbers(seen)))]
        assert numbers(seen) + rest == list(range(1, info.last_sequence + 1))
        assert info.attempt == 1


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_trainer_killed_while_images_come_in_disturbs_neither(
    new_server: NewServer, tmp_path: Path, seed: int
) -> None:
    server, first, second = new_server(), tmp_path / "first", tmp_path / "second"
    write_photos(first, 96, seed=seed)
    write_photos(second, NUM_IMAGES, seed=seed + 100)
    server.start()
    with server.client() as client:
        job = client.train(client.upload(first, dataset="first"), epochs=8, config=SMALL_JOB)
        wait_until(lambda: job.refresh().progress.step >= 5, "step 5", 40)
        uploads: list[manyview.Dataset] = []
        uploader = threading.Thread(target=lambda: uploads.append(client.upload(second, dataset="second")))
        uploader.start()
        time.sleep(random.Random(seed).uniform(0, 0.2))
        for pid in server.workers("trainer"):
            os.kill(pid, signal.SIGKILL)
        uploader.join(30)
        assert uploads
        assert_holds_exactly(client, "second", second)
        assert job.wait(timeout_s=50).state == "SUCCEEDED"
        assert client.health() == "SERVING"
