"""A process dies, or the power fails, at each of the calls by which shards are closed and indexed (F3).

Promises: whatever was acknowledged is there, once, with its bytes; the upload continues; index files say what
the database says.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from support.clients.probe import require
from support.faults.disks import ext4
from support.faults.evidence import database_damage
from support.faults.killing_points import NEVER, Point, drawn, points
from support.faults.sealing import NUM_BATCHES, Sealing, judge
from support.faults.strace import injected
from support.soak.rounds import rounds

pytestmark = pytest.mark.timeout(240)

CALLS = "openat,pwritev2,pwrite64,write,fdatasync,fsync,ftruncate,rename,unlink"


def killing_points(folder: Path) -> dict[str, list[Point]]:
    """The calls on the shards and the database, and those on index files, of a process that is left alone."""
    process, log = Sealing(folder / "watched"), folder / "watched.log"
    with injected(process.pid, CALLS, NEVER, [], log):
        process.go()
        assert process.wait() == (0, NUM_BATCHES)
    asyncio.run(judge(folder / "watched", NUM_BATCHES))
    found = {"commit": points(log, "/datasets/", "manyview.sqlite"), "index": points(log, ".idx")}
    assert {"pwritev2", "fdatasync", "pwrite64", "openat", "fsync"} <= {point.call for point in found["commit"]}
    assert {"openat", "write", "rename"} <= {point.call for point in found["index"]}
    return found


@pytest.mark.parametrize("seed", rounds(1))
def test_a_process_that_dies_at_any_call_while_shards_are_closed_keeps_all_that_it_acknowledged(
    tmp_path: Path, seed: int
) -> None:
    require("strace")
    kills = 0
    for kind, found in killing_points(tmp_path).items():
        (point,) = drawn(found, seed, 1)
        data_dir = tmp_path / kind
        process = Sealing(data_dir)
        with injected(process.pid, point.call, f"signal=KILL:when={point.nth}", [], tmp_path / "log"):
            process.go()
            status, acknowledged = process.wait()
        kills += status != 0
        assert database_damage(data_dir) == []
        asyncio.run(judge(data_dir, acknowledged))
        again = Sealing(data_dir)
        again.go()
        assert again.wait()[0] == 0
        asyncio.run(judge(data_dir, NUM_BATCHES))
    assert kills > 0


@pytest.mark.parametrize("seed", rounds(1))
def test_a_power_cut_at_any_call_while_shards_are_closed_takes_nothing_that_was_acknowledged(
    tmp_path: Path, seed: int
) -> None:
    require("strace", "loop")
    for found in killing_points(tmp_path).values():
        (point,) = drawn(found, seed, 1)
        with ext4() as disk:
            data_dir = disk.path / "data"
            process = Sealing(data_dir)
            with injected(process.pid, point.call, f"signal=STOP:when={point.nth}", [], tmp_path / "log"):
                process.go()
                process.wait_until_stopped()
            disk.power_cut(process)
            asyncio.run(judge(data_dir, process.wait()[1]))
            again = Sealing(data_dir)
            again.go()
            assert again.wait()[0] == 0
            asyncio.run(judge(data_dir, NUM_BATCHES))
