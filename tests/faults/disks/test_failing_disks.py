"""A disk that fails: it refuses a sync (F15), or is read-only from one moment to the next, as ext4 is when it finds
damage (F16)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import manyview
from support.clients.probe import require
from support.clients.uploading import PATIENCE_S, Uploading, new_dataset
from support.faults.disks import ext4, server_on
from support.faults.evidence import database_damage
from support.faults.strace import injected
from support.service.harness import NO_FORK_SERVER, SMALL_JOB, ServerProcess, wait_until, write_photos
from support.soak.rounds import rounds

pytestmark = pytest.mark.timeout(240)

NewServer = Callable[..., ServerProcess]
Report = Callable[[str, object], None]

EXIT_SYNC_FAILED = 74
SYNCS = ("shard", "directory", "log")
IMPATIENT = manyview.Deadlines(unary_s=3, reconnect_s=2)
"""A client that does not wait until a disk is repaired."""


@pytest.mark.parametrize("seed", rounds(3))
def test_after_a_sync_that_failed_the_server_ends_and_what_it_acknowledged_is_there(
    new_server: NewServer, tmp_path: Path, record_property: Report, seed: int
) -> None:
    require("strace")
    server = new_server("--max-batch-images", "8", *NO_FORK_SERVER)
    server.start()
    assert server.process is not None
    write_photos(tmp_path / "photos", 96, seed=seed)
    directory, shard, _, log_file = new_dataset(server, "photos")
    target, nth = {
        "shard": (shard, 1 + seed // 3 % 5),
        "directory": (directory, 1),
        # The commits of the upload's own row, of the batches, and of the end.
        "log": (log_file, 1 + seed // 3 % 8),
    }[SYNCS[seed % 3]]
    trace = tmp_path / "strace"
    with injected(server.process.pid, "fdatasync,fsync", f"error=EIO:when={nth}", [target], trace):
        uploading = Uploading(server, tmp_path / "photos", "photos")
        wait_until(lambda: "(INJECTED)" in trace.read_text(), f"a sync of {target.name} fails", PATIENCE_S)
        failed = time.monotonic()
        wait_until(server.died, "the server ends", 10)
        took_s = time.monotonic() - failed
    assert server.process.returncode == EXIT_SYNC_FAILED
    assert "sync failed, exiting" in server.log.read_text()
    before = uploading.num_acknowledged
    wait_until(lambda: not server.processes(), "every process of the server is gone", 10)
    damage = database_damage(server.data_dir)
    server.start()
    uploading.finish()
    uploading.judge(server, record_property, damage)
    record_property("acknowledged_before_kill", before)
    record_property("max_exit_ms", round(1000 * took_s))


@pytest.mark.parametrize("seed", rounds(1))
def test_a_sync_of_the_database_file_that_failed_is_made_up_for_from_sqlites_log(
    new_server: NewServer, tmp_path: Path, record_property: Report, seed: int
) -> None:
    """SQLite copies its log there every 1000 pages, about 530 images, and tries again with the next commit."""
    require("strace")
    server = new_server("--max-batch-images", "1", *NO_FORK_SERVER)
    server.start()
    assert server.process is not None
    write_photos(tmp_path / "photos", 700, seed=seed, side=8)
    trace, database = tmp_path / "strace", server.data_dir / "manyview.sqlite"
    with injected(server.process.pid, "fdatasync,fsync", "error=EIO:when=1", [database], trace):
        uploading = Uploading(server, tmp_path / "photos", "photos")
        uploading.finish()
    syncs = [line for line in trace.read_text().splitlines() if "sync(" in line]
    assert syncs[0].endswith("(INJECTED)")
    assert any(line.endswith(" = 0") for line in syncs[1:]), "it was tried again"
    server.kill()
    wait_until(lambda: not server.processes(), "every process of the server is gone", 10)
    damage = database_damage(server.data_dir)
    server.start()
    uploading.judge(server, record_property, damage)


@pytest.mark.parametrize("seed", rounds(1))
def test_a_disk_that_turns_read_only_is_told_to_callers_and_all_goes_on_once_it_is_repaired(
    catalogue: Path, tmp_path: Path, record_property: Report, seed: int
) -> None:
    require("loop")
    for number, name in enumerate(("before", "during")):
        write_photos(tmp_path / name, 64, seed=2 * seed + number)
    config = SMALL_JOB | {"epochs": 100_000, "checkpoint_every_epochs": 16, "evaluation": {"knn_every_epochs": 0}}
    with ext4() as disk, server_on(disk.path, catalogue) as server:
        server.start()
        assert server.process is not None
        uploading = Uploading(server, tmp_path / "before", "before")
        uploading.finish()
        with server.client() as client, manyview.Client(server.address, deadlines=IMPATIENT) as impatient:
            job = client.train("before", config=config, job_id="job")
            wait_until(lambda: bool(job.checkpoints()), "a checkpoint", PATIENCE_S)
            disk.fail()
            for refused in (
                lambda: impatient.upload(tmp_path / "during", "before"),
                lambda: impatient.upload(tmp_path / "during", "during"),
                lambda: impatient.train("before", config=config),
                lambda: impatient.job("job").cancel(),
            ):
                with pytest.raises(manyview.Unavailable, match="store cannot be used now") as caught:
                    refused()
                assert caught.value.reason == "STORE_UNAVAILABLE"
            assert impatient.health() == "SERVING"
            assert len(list(impatient.images("before"))) == 64
            assert impatient.job("job").state in ("RUNNING", "RECOVERING")
            time.sleep(1.0)
            assert server.process.poll() is None, "it neither gives up nor starts again and again"
            assert server.stop() == 0
            with pytest.raises(AssertionError, match=r"cannot start.*Read-only file system"):
                server.start()
            wait_until(server.died, "it does not start")
            assert server.process.returncode == 1
            wait_until(lambda: not server.processes(), "every process of the server is gone", 10)
            disk.repair()
            assert not database_damage(disk.path)
            server.start()
            uploading.judge(server, record_property)
            later = Uploading(server, tmp_path / "during", "during")
            later.finish()
            later.judge(server, record_property)
            wait_until(lambda: job.refresh().state == "RUNNING" and job.info.attempt > 1, "the job runs", PATIENCE_S)
            job.cancel()
            wait_until(lambda: job.refresh().state == "CANCELLED", "the job is cancelled", PATIENCE_S)
