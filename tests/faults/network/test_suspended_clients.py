"""A client that is stopped for longer than its server waits for it goes on by itself when it wakes up (F80)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.clients.actors import Actor
from support.faults.evidence import Evidence, dataset_evidence
from support.faults.validator import validate
from support.service.harness import NO_FORK_SERVER, ServerProcess, wait_until, write_photos
from support.soak.rounds import rounds

pytestmark = pytest.mark.timeout(180)

NUM_IMAGES = 300
SILENCE_S = 4
"""The server closes a connection that does not answer for so long."""
STOPPED_S = 7.0
PATIENCE_S = 100.0


@pytest.mark.parametrize("seed", rounds(1))
def test_an_upload_whose_client_was_stopped_goes_on_and_loses_nothing(
    new_server: Callable[..., ServerProcess], tmp_path: Path, record_property: Callable[[str, object], None], seed: int
) -> None:
    write_photos(tmp_path / "photos", NUM_IMAGES, seed=seed, side=32)
    keepalive = ("--keepalive-s", "1", "--keepalive-timeout-s", str(SILENCE_S - 1))
    server = new_server(*keepalive, "--max-batch-images", "4", *NO_FORK_SERVER)
    server.start()
    uploader = Actor("uploader", "uploader", server.address, tmp_path, "photos", str(tmp_path / "photos"), "0.1")
    try:
        uploader.start()
        wait_until(lambda: bool(uploader.history("acked")), "the upload has begun", PATIENCE_S)
        uploader.suspend(STOPPED_S)
        assert len(uploader.history("acked")) < NUM_IMAGES, "the upload was over too soon"
        uploader.finish(PATIENCE_S)
    finally:
        uploader.close()
    with server.client() as client:
        dataset = dataset_evidence(client, server.data_dir, "photos")
    verdict = validate({"uploader": uploader.history()}, Evidence(datasets={"photos": dataset}))
    verdict.assert_clean()
    assert dataset.num_images == NUM_IMAGES
    for name, value in verdict.figures().items():
        record_property(name, value)
