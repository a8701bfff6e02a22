"""Training that begins while images still come in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import manyview
from manyview._uploads import batcher
from support.service.harness import SMALL_JOB, ServerProcess, wait_until, write_photos

pytestmark = pytest.mark.timeout(180)

FIRST, ALL = 64, 192


def test_a_job_begins_while_the_upload_runs_adopts_the_rest_and_its_embeddings_are_served_meanwhile(
    server: ServerProcess, client: manyview.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "_BATCH_IMAGES", 8)
    paths = write_photos(tmp_path / "photos", ALL, seed=3)
    go_on = threading.Event()

    def trickle() -> Iterator[Path]:
        """The first images, and the others once something waits for them."""
        yield from paths[:FIRST]
        assert go_on.wait(60)
        for path in paths[FIRST:]:
            time.sleep(0.02)
            yield path

    with server.client() as uploading:
        client.create_dataset("followed")
        config = SMALL_JOB | {"max_steps": 6000, "checkpoint_every_epochs": 4, "log_every_steps": 4}
        job = client.train("followed", "moco", config=config, follow=FIRST)
        assert (job.state, job.info.min_images, job.info.num_images) == ("QUEUED", FIRST, 0)
        upload = threading.Thread(target=uploading.upload, args=(trickle(),), kwargs={"dataset": "followed"})
        upload.start()
        try:
            wait_until(lambda: job.refresh().progress.step > 0, "training begins before the upload is done", 40)
            assert FIRST <= job.info.num_images < ALL
            wait_until(lambda: bool(job.refresh().latest_checkpoint), "a checkpoint", 40)
            assert client.embed(paths[:2], model=job).checkpoint.startswith(job.name)
        finally:
            go_on.set()
            upload.join()
        wait_until(lambda: job.refresh().num_images == ALL, "all images are adopted", 40)
        assert job.state == "RUNNING", "the job is long enough"
        step = job.info.progress.step
        server.kill()
        server.start()
        wait_until(lambda: job.refresh().progress.step > step, "it continues", 40)
        job.cancel()
        events = list(job.metrics())
    adopted = [event for event in events if event.kind == "snapshot"]
    by_size = {event["num_images"]: event["num_added"] for event in adopted}
    assert sum(by_size.values()) == max(by_size) == ALL
    assert len(by_size) >= 3, "more than once while they came"
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert adopted[0].step == 0


def test_a_job_that_does_not_follow_computes_the_same_while_its_data_set_grows(
    client: manyview.Client, tmp_path: Path
) -> None:
    write_photos(tmp_path / "first", FIRST, seed=3)
    write_photos(tmp_path / "more", FIRST, seed=4)
    photos = client.upload(tmp_path / "first", dataset="grows")
    config = SMALL_JOB | {"epochs": 12}
    alone = client.train(photos, "moco", config=config)
    alone.wait(timeout_s=60)
    disturbed = client.train(photos, "moco", config=config)
    wait_until(lambda: disturbed.refresh().progress.step > 4, "it trains", 40)
    client.upload(tmp_path / "more", dataset="grows")
    assert disturbed.wait(timeout_s=60).num_images == FIRST
    assert client.dataset("grows").num_images == 2 * FIRST
    names = ("loss", "gradient_norm", "knn_top1")
    for name in names:
        assert alone.history()[name].tobytes() == disturbed.history()[name].tobytes()
    assert not list(disturbed.metrics(kinds=["snapshot"]))
