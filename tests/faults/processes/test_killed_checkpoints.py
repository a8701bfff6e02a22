"""The trainer is killed at each of the calls by which a checkpoint gets to the disk (F21).

Promises: the job goes on from the checkpoint before; one that was not written to its end is never loaded, nor left
behind; the job ends with the very bits of one that was left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import manyview
from manyview_server.store.jobs.checkpoints import parse_name
from support.clients.probe import require
from support.faults.killing_points import NEVER, Point, drawn, points
from support.faults.strace import injected
from support.learning.exactness import exact, last_checkpoint
from support.service.harness import SMALL_JOB, ServerProcess, wait_until, write_photos
from support.soak.rounds import rounds

pytestmark = pytest.mark.timeout(240)

Report = Callable[[str, object], None]

CALLS = "mkdir,openat,write,pwrite64,ftruncate,fallocate,fsync,fdatasync,rename"
WITHIN = "/checkpoints/"
CONFIG = SMALL_JOB | {"max_steps": 6, "checkpoint_every_steps": 2, "evaluation": {"knn_every_epochs": 0}}
PATIENCE_S = 90.0


class Stage:
    """A server on which one job was trained undisturbed, and the calls by which it wrote a checkpoint."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server = server
        self.log = folder / "strace"
        self.failpoints = folder / "failpoints"
        server.start()
        self.client = server.client()
        write_photos(folder / "photos", 96, seed=21)
        self.client.upload(folder / "photos", dataset="photos")
        self.alone, failpoint = self.train("alone"), self.hold(3)
        with self.watched(self.alone, failpoint, NEVER):
            self.alone.wait(PATIENCE_S)
        self.points = points(self.log, WITHIN)

    def train(self, name: str) -> manyview.Job:
        return self.client.train("photos", "moco", config=CONFIG, job_id=name)

    def hold(self, step: int) -> Path:
        """A trainer that comes to this step waits there until the file is removed."""
        failpoint = self.failpoints / f"trainer.step@{step}"
        failpoint.write_text("hold")
        return failpoint

    @contextmanager
    def watched(self, job: manyview.Job, failpoint: Path, fault: str, calls: str = CALLS) -> Iterator[int]:
        """Once the checkpoint before it is written, go on from there and meet the fault; gives the process."""
        before = int(failpoint.name.partition("@")[2]) - 1
        wait_until(lambda: any(c.step == before for c in job.checkpoints()), f"checkpoint {before}", PATIENCE_S)
        (pid,) = self.server.workers("trainer")
        with injected(pid, calls, fault, [], self.log):
            failpoint.unlink()
            yield pid


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> Iterator[Stage]:
    require("strace")
    folder = tmp_path_factory.mktemp("checkpoints")
    (folder / "failpoints").mkdir()
    server = ServerProcess(folder / "data", catalogue=catalogue)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANYVIEW_FAILPOINTS", str(folder / "failpoints"))
        try:
            made = Stage(server, folder)
            yield made
            made.client.close()
        finally:
            server.stop()


@pytest.mark.parametrize("seed", rounds(1))
def test_a_trainer_that_dies_at_any_call_of_a_checkpoint_goes_on_from_the_one_before_to_the_same_bits(
    stage: Stage, record_property: Report, seed: int
) -> None:
    assert {"mkdir", "write", "fsync", "rename"} <= {point.call for point in stage.points}
    first, second = drawn(stage.points, seed, 2)
    failpoints = [stage.hold(3), stage.hold(5)]
    job = stage.train(f"killed-{seed}")
    try:
        for failpoint, point, name in zip(failpoints, (first, second), ("000000004-1", "000000006-2"), strict=True):
            die_at(stage, job, failpoint, point, name)
        job.wait(PATIENCE_S)
    except BaseException:  # the next round must not wait behind this job
        for failpoint in failpoints:
            failpoint.unlink(missing_ok=True)
        job.cancel()
        raise
    rollbacks = [event.values["to_step"] for event in job.metrics(kinds=["rollback"])]
    assert rollbacks == [2, 4], "the checkpoints before those that were not written to their end"
    assert job.refresh().attempt == 3
    assert exact(job) == exact(stage.alone)
    assert last_checkpoint(stage.server, job) == last_checkpoint(stage.server, stage.alone)
    directory = stage.server.data_dir / "jobs" / job.info.uid / "checkpoints"
    left = sorted(path.name for path in directory.iterdir())
    assert [parse_name(directory / name) for name in left] == [(2, 1), (4, 2), (6, 3)]
    record_property("kills_of_trainer", 2)
    record_property("max_killing_points", len(stage.points))


def die_at(stage: Stage, job: manyview.Job, failpoint: Path, point: Point, name: str) -> None:
    """The trainer that waits there is killed at this call while it writes the checkpoint of this name."""
    with stage.watched(job, failpoint, f"signal=KILL:when={point.nth}", point.call) as pid:
        wait_until(lambda: pid not in stage.server.processes(), f"the trainer dies at {point}", PATIENCE_S)
    lines = [line for line in stage.log.read_text().splitlines() if point.call in line or "+++" in line]
    assert "killed by SIGKILL" in lines[-1]
    assert name in lines[-2] or lines[-2].endswith("+++") or name in _started(lines), lines[-3:]


def _started(lines: list[str]) -> str:
    """The beginning of the last call, where strace wrote lines of other threads before its end."""
    thread = lines[-2].split()[0]
    unfinished = [line for line in lines if line.split()[0] == thread and line.endswith("<unfinished ...>")]
    return unfinished[-1] if "resumed>" in lines[-2] and unfinished else ""
