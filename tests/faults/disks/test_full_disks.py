"""The disk is full: when images come in (F14), and when a job writes its checkpoints (F31).

Promises: the refusal says so; nothing half written is seen; what was there can be read, jobs can be cancelled and data
deleted; all goes on when there is room, without a restart.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import manyview
from manyview_server import failpoints
from support.clients.probe import require
from support.clients.uploading import PATIENCE_S, Uploading, new_dataset
from support.faults.disks import MIB, fill, server_on, small_tmpfs
from support.faults.evidence import database_damage
from support.faults.strace import injected
from support.service.harness import NO_FORK_SERVER, SMALL_JOB, ServerProcess, wait_until, write_photos
from support.soak.rounds import rounds

pytestmark = pytest.mark.timeout(240)

NewServer = Callable[..., ServerProcess]
Report = Callable[[str, object], None]

IMPATIENT = manyview.Deadlines(unary_s=5, reconnect_s=2)
"""A client that does not wait for room."""
NUM_MIB = 128
RESERVE_BYTES = NUM_MIB * MIB // 20
"""The room that the server keeps free of uploads on a disk of this size."""
MARATHON = SMALL_JOB | {
    "epochs": 100_000,
    "log_every_steps": 20,
    "checkpoint_every_epochs": 16,
    "evaluation": {"knn_every_epochs": 0},
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A running server whose data fill a small disk."""

    disk: Path
    server: ServerProcess
    failpoints: Path


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> Iterator[Stage]:
    """One server for all full disks: none of them ends it, or harms its database."""
    require("tmpfs")
    failpoint_dir = tmp_path_factory.mktemp("failpoints")
    with small_tmpfs(NUM_MIB) as disk, server_on(disk, catalogue, "--max-batch-images", "8") as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(failpoints.VARIABLE, str(failpoint_dir))
            server.start()
        assert server.process is not None
        pid = server.process.pid
        yield Stage(disk=disk, server=server, failpoints=failpoint_dir)
        assert server.process.pid == pid
        assert server.stop() == 0
        assert not database_damage(server.data_dir)


def refusal(uploading: Uploading) -> None:
    """The upload fails, for want of room."""
    failure = uploading.end()
    assert isinstance(failure, manyview.ResourceExhausted)
    assert failure.reason == "DISK_FULL"
    assert failure.retry_after_s == 30.0


@pytest.mark.parametrize("seed", rounds(1))
def test_a_full_disk_refuses_images_and_nothing_else_and_takes_them_when_there_is_room(
    stage: Stage, tmp_path: Path, record_property: Report, seed: int
) -> None:
    disk, server = stage.disk, stage.server
    write_photos(tmp_path / "few", 64, seed=2 * seed)
    write_photos(tmp_path / "many", 400, seed=2 * seed + 1)
    slow = stage.failpoints / "trainer.step"
    slow.write_text("sleep 0.02 always")  # the cores are for the uploads
    few = Uploading(server, tmp_path / "few", "few")
    few.finish()
    with server.client() as client:
        job = client.train("few", config=MARATHON)
        wait_until(lambda: bool(job.checkpoints()), "a checkpoint", PATIENCE_S)

        # Room for some of the images, above what is kept for other things.
        fill(disk, RESERVE_BYTES + random.Random(seed).randrange(300_000, 500_000))
        many = Uploading(server, tmp_path / "many", "many", IMPATIENT)
        refusal(many)
        assert many.num_acknowledged > 0
        many.judge(server, record_property)

        # Not a byte: what uploads left is taken by others.
        ballast = fill(disk)
        refusal(Uploading(server, tmp_path / "many", "many", IMPATIENT))
        few.judge(server, record_property)
        many.judge(server, record_property)
        assert client.health() == "SERVING"
        assert job.refresh().state == "RUNNING"
        job.cancel()
        wait_until(lambda: job.refresh().state == "CANCELLED", "the job is cancelled", PATIENCE_S)
        slow.unlink()
        client.delete_dataset("few")
        assert [dataset.id for dataset in client.datasets()] == ["many"]
        job.delete()
        assert not list((server.data_dir / "jobs").iterdir()), "checkpoints are gone from the disk"

        ballast.unlink()
        again = Uploading(server, tmp_path / "many", "many", IMPATIENT)
        again.finish()
        again.judge(server, record_property)
        client.delete_dataset("many")


@pytest.mark.parametrize("seed", rounds(2))
def test_a_write_that_finds_no_room_leaves_nothing_of_its_batch(
    new_server: NewServer, tmp_path: Path, record_property: Report, seed: int
) -> None:
    require("strace")
    server = new_server("--max-batch-images", "8", *NO_FORK_SERVER)
    server.start()
    assert server.process is not None
    write_photos(tmp_path / "photos", 96, seed=seed)
    _, shard, _, log_file = new_dataset(server, "photos")
    call, target, nth = [("pwritev2", shard, 1 + seed // 2 % 4), ("pwrite64", log_file, 1 + seed // 2 * 3 % 40)][
        seed % 2
    ]
    fault = f"error=ENOSPC:when={nth}"
    with injected(server.process.pid, call, fault, [target], tmp_path / "strace"):
        refused = Uploading(server, tmp_path / "photos", "photos", IMPATIENT)
        refusal(refused)
    assert "(INJECTED)" in (tmp_path / "strace").read_text()
    refused.judge(server, record_property)
    again = Uploading(server, tmp_path / "photos", "photos", IMPATIENT)
    again.finish()
    again.judge(server, record_property)
    assert server.stop() == 0
    assert not database_damage(server.data_dir)


def test_a_job_whose_checkpoints_find_no_room_trains_on_and_pauses_and_goes_on_when_there_is_some(
    stage: Stage, tmp_path: Path
) -> None:
    disk, server = stage.disk, stage.server
    write_photos(tmp_path / "photos", 96, seed=31)
    # Checkpoints of 8 MiB, for the bank: more than the server gives up of its own when the disk is full.
    config = SMALL_JOB | {
        "max_steps": 24,
        "checkpoint_every_steps": 4,
        "memory_bank_size": 16_384,
        "evaluation": {"knn_every_epochs": 0},
    }
    with server.client() as client:
        client.upload(tmp_path / "photos", dataset="photos")
        (stage.failpoints / "trainer.step@6").write_text("hold")
        job = client.train("photos", "moco", config=config)
        wait_until(lambda: bool(job.checkpoints()), "the checkpoint of step 4", PATIENCE_S)
        ballast = fill(disk)
        (stage.failpoints / "trainer.step@6").unlink()
        wait_until(lambda: job.refresh().state == "PAUSED", "the job pauses", PATIENCE_S)
        events = list(job.metrics(follow=False))
        alerts = [event for event in events if event.kind == "alert"]
        assert [event.step for event in alerts][:3] == [8, 12, 16]
        assert {event.values["reason"] for event in alerts} == {"CHECKPOINT_FAILED"}
        trained = [event.step for event in events if event.kind == "scalars" and "gradient_norm" in event.values]
        assert trained == list(range(1, max(trained) + 1)), "it trained on"
        assert max(trained) >= 16
        assert [event.values["reason"] for event in events if event.kind == "state"][-1] == "CHECKPOINT_FAILED"
        assert not server.workers("trainer")
        checkpoints = server.data_dir / "jobs" / job.info.uid / "checkpoints"
        assert [path.name for path in checkpoints.iterdir()] == ["000000004-1"], "nothing half written is left"
        ballast.unlink()
        job.resume()
        job.wait(PATIENCE_S)
        assert [row["step"] for row in job.history(["gradient_norm"]).rows] == list(range(1, 25))
        assert [event.values["to_step"] for event in job.metrics(kinds=["rollback"])] == [4]
        job.delete()
        client.delete_dataset("photos")
