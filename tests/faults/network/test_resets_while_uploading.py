"""An upload over a path that breaks every second or so ends whole, and a break costs at most the window again (F61)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.clients.actors import Actor
from support.faults.evidence import Evidence, dataset_evidence
from support.faults.proxy import Proxy
from support.faults.validator import validate
from support.service.harness import NO_FORK_SERVER, ServerProcess, wait_until, write_photos
from support.soak.rounds import rounds, soaking

pytestmark = pytest.mark.timeout(180)

NUM_IMAGES = 4000 if soaking() else 600
SIDE = 64
BATCH_IMAGES = 8
WINDOW_BATCHES = 8
BYTES_PER_S = 300_000.0
BESIDE_AN_IMAGE = 200
"""Bytes that go with an image: its key, label, digest, and frames."""
CONNECTING = 20_000
"""Bytes that a client sends for each connection, and other than images: a greeting, a header, pings."""
PATIENCE_S = 120.0


@pytest.mark.parametrize("seed", rounds(1))
def test_an_upload_over_a_path_that_breaks_again_and_again_sends_no_more_than_its_window_again(
    new_server: Callable[..., ServerProcess],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    seed: int,
) -> None:
    random_ = random.Random(seed)
    photos = write_photos(tmp_path / "photos", NUM_IMAGES, seed=seed, side=SIDE)
    sizes = [path.stat().st_size for path in photos]
    server = new_server("--max-batch-images", str(BATCH_IMAGES), *NO_FORK_SERVER)
    server.start()
    with Proxy(server.address, bytes_per_s=BYTES_PER_S) as proxy, server.client() as client:
        uploader = Actor("uploader", "uploader", proxy.address, tmp_path, "photos", str(tmp_path / "photos"))
        num_resets = 0
        try:
            uploader.start()
            wait_until(lambda: bool(uploader.history("acked")), "the upload has begun", PATIENCE_S)
            while uploader.alive:
                time.sleep(random_.uniform(0.6, 1.6))
                num_resets += bool(proxy.reset())
            uploader.finish(PATIENCE_S)
        finally:
            uploader.close()
        num_sent = sum(link.bytes_up for link in proxy.links)
        num_links = len(proxy.links)
        dataset = dataset_evidence(client, server.data_dir, "photos")
    verdict = validate({"uploader": uploader.history()}, Evidence(datasets={"photos": dataset}))
    verdict.assert_clean()
    assert dataset.num_images == NUM_IMAGES
    assert num_resets >= 3, "the upload was over too soon"
    window = WINDOW_BATCHES * BATCH_IMAGES * (max(sizes) + BESIDE_AN_IMAGE)
    needed = sum(sizes) + NUM_IMAGES * BESIDE_AN_IMAGE + num_links * CONNECTING
    resent_each = max(0, num_sent - needed) / num_resets
    print(f"{num_resets} resets, {resent_each:.0f} bytes sent again for each, a window of {window}")
    assert resent_each <= window
    record_property("upload_resets", num_resets)
    record_property("max_bytes_sent_again", round(resent_each))
    for name, value in verdict.figures().items():
        record_property(name, value)
