"""The server is killed at each of the calls by which images get to the disk (F3).

Promises: whatever was acknowledged is there, once, with its bytes; the upload goes on by itself, to its end; database
and shards are whole.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from support.clients.probe import require
from support.clients.uploading import PATIENCE_S, Uploading, new_dataset
from support.faults.evidence import database_damage
from support.faults.killing_points import NEVER, Point, drawn, points
from support.faults.strace import injected
from support.service.harness import ServerProcess, wait_until, write_photos
from support.soak.rounds import rounds, soaking

pytestmark = pytest.mark.timeout(240)

NewServer = Callable[..., ServerProcess]
Report = Callable[[str, object], None]

CALLS = "openat,pwritev2,pwrite64,fdatasync,fsync,ftruncate"
KILLS = 2
NUM_IMAGES = 16
NUM_SINGLE_IMAGES = 900 if soaking() else 550
"""SQLite copies its log into the database every 1000 pages; an image and its commit are four of them, at least."""
LONG_NAME = "long-name-" * 20
"""A part of each key, so that already the first copy writes more pages than any point of the test needs."""


@pytest.mark.parametrize("seed", rounds(1))
def test_a_server_that_dies_at_any_call_of_a_commit_keeps_all_that_it_acknowledged(
    new_server: NewServer, tmp_path: Path, record_property: Report, seed: int
) -> None:
    require("strace")
    server = new_server("--max-batch-images", "8", "--fork-workers", "off")
    server.start()
    assert server.process is not None
    folders = [tmp_path / f"photos-{number}" for number in range(KILLS + 1)]
    for number, folder in enumerate(folders):
        write_photos(folder, NUM_IMAGES, seed=100 * seed + number)
    files = new_dataset(server, "watched")
    with injected(server.process.pid, CALLS, NEVER, files, tmp_path / "strace"):
        Uploading(server, folders[0], "watched").finish()
    found = points(tmp_path / "strace", *map(str, files))
    assert {"openat", "fsync", "pwritev2", "fdatasync", "pwrite64"} <= {point.call for point in found}
    kills = sum(
        kill_at(server, point, folder, tmp_path / "strace", record_property)
        for point, folder in zip(drawn(found, seed, KILLS), folders[1:], strict=True)
    )
    # Batches may share a commit, or not: there are fewer calls then.
    assert kills > 0
    record_property("kills_of_server", kills)
    record_property("max_killing_points", len(found))


def kill_at(server: ServerProcess, point: Point, folder: Path, log: Path, report: Report) -> bool:
    """Upload to a new data set and kill the server at that point; whether it came to that. Judges the end."""
    assert server.process is not None
    files = new_dataset(server, folder.name)
    with injected(server.process.pid, point.call, f"signal=KILL:when={point.nth}", files, log):
        uploading = Uploading(server, folder, folder.name)
        wait_until(lambda: server.died() or not uploading.running, f"the server dies at {point}", PATIENCE_S)
    killed, damage = server.died(), []
    if killed:
        wait_until(lambda: not server.processes(), "every process of the server is gone", 10)
        damage = database_damage(server.data_dir)
        server.start()
    uploading.finish()
    uploading.judge(server, report, damage)
    return killed


@pytest.mark.parametrize("seed", rounds(1))
def test_a_server_that_dies_while_sqlite_empties_its_log_keeps_all_that_it_acknowledged(
    new_server: NewServer, tmp_path: Path, record_property: Report, seed: int
) -> None:
    require("strace")
    server = new_server("--max-batch-images", "1", "--fork-workers", "off")
    server.start()
    assert server.process is not None
    write_photos(tmp_path / "photos" / LONG_NAME, NUM_SINGLE_IMAGES, seed=seed, side=8)
    log, draw = tmp_path / "strace", random.Random(seed)
    point = Point("fdatasync", 1) if draw.random() < 0.2 else Point("pwrite64", draw.randrange(1, 40))
    database = server.data_dir / "manyview.sqlite"
    with injected(server.process.pid, point.call, f"signal=KILL:when={point.nth}", [database], log):
        uploading = Uploading(server, tmp_path / "photos", "photos")
        wait_until(lambda: server.died() or not uploading.running, f"the server dies at {point}", PATIENCE_S)
    assert server.died(), "there was a checkpoint of the log"
    before = uploading.num_acknowledged
    wait_until(lambda: not server.processes(), "every process of the server is gone", 10)
    damage = database_damage(server.data_dir)
    server.start()
    uploading.finish()
    uploading.judge(server, record_property, damage)
    record_property("kills_of_server", 1)
    record_property("acknowledged_before_kill", before)
