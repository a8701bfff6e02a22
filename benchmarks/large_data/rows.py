"""Measure what millions of images cost before the first one is read: snapshots, and the start of a job.

Rows are made up, in shards of 9,600 images as photographs of 110 KB fill them. Nobody reads the images, which are not
there. Each figure comes from a process of its own. "before" is the code of releases without index files: all rows are
read from the database, and copied into a message. Memory is what the process holds in addition to its start.

    python -m benchmarks.large_data.rows  # 10 million rows: 4 minutes and 2 GB of disk
    python -m benchmarks.large_data.rows --rows 30000000 --no-before  # 30 million rows
    python -m benchmarks.large_data.rows --data DIR  # keep the rows, and measure with them again later
    python -m benchmarks.large_data.rows --data DIR --only snapshots
    python -m benchmarks.large_data.rows --report
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from benchmarks.results import Results, markdown, table

from manyview_server.link.frames import MAX_BLOB_BYTES, PREFIX, decode, frame
from manyview_server.messages.training import StartTraining
from manyview_server.store.database.database import Database
from manyview_server.store.images.dataset_index import ROWS as ROWS_SQL
from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.store.images.snapshots import SnapshotRows
from manyview_server.store.store import Store

RESULTS = Results("rows")
SHARD_ROWS = 9_600
INSERT_ROWS = 200_000
OLD_CHUNK_ROWS = 50_000
MIB = 1 << 20
CALLS = 20

T = TypeVar("T")


def main() -> None:
    """Make the rows, measure all cells, remove the rows, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--no-before", action="store_true", help="leave out the code of earlier releases")
    parser.add_argument("--data", type=Path, help="a directory that keeps the rows for later calls")
    parser.add_argument("--only", choices=tuple(MEASURES), help="measure nothing else")
    parser.add_argument("--report", action="store_true", help="only print what there is")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, data_dir = json.loads(arguments.child)
        print(json.dumps(MEASURES[name](Path(data_dir))))
        return
    if not arguments.report:
        names = [arguments.only] if arguments.only else list(MEASURES)
        names = [name for name in names if name != "before" or not arguments.no_before]
        with tempfile.TemporaryDirectory(prefix="manyview-rows-") as directory:
            measure(arguments.data or Path(directory), arguments.rows, names)
    print(report())


def measure(data_dir: Path, num_rows: int, names: list[str]) -> None:
    """Measure these cells of a data set of this size, which is made unless the directory has it."""
    made = data_dir / f"{num_rows}-rows"
    if not made.exists():
        data_dir.mkdir(mode=0o700, exist_ok=True)
        asyncio.run(make(data_dir, num_rows))
        made.touch()
    for name in names:
        command = [sys.executable, "-m", "benchmarks.large_data.rows", "--child", json.dumps([name, str(data_dir)])]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        for what, values in json.loads(done.stdout).items():
            RESULTS.add({"what": what, "rows": num_rows}, {**values, "load_average": os.getloadavg()[0]})


async def make(data_dir: Path, num_rows: int) -> None:
    """Write the rows of a data set into a new store."""
    store = Store.open(data_dir, reserve_bytes=0)
    await store.datasets.create("a")
    await store._database.read(lambda c: c.execute("PRAGMA synchronous=OFF").fetchone())
    for start in range(0, num_rows, INSERT_ROWS):
        stop = min(start + INSERT_ROWS, num_rows)
        await store._database.write(partial(insert, start=start, stop=stop))
    await store._database.write(
        lambda c: (
            c.execute(
                "UPDATE dataset SET num_images = ?, num_labels = 1000, shard = ?, shard_bytes = 0",
                (num_rows, (num_rows - 1) // SHARD_ROWS),
            ).rowcount
        )
    )
    await store.close()


def made_rows(start: int, stop: int) -> Iterator[tuple[Any, ...]]:
    """Yield rows of the table of images."""
    for at in range(start, stop):
        place = 512 + 112_000 * (at % SHARD_ROWS)
        yield 1, at + 1, (at + 1) << 32, at // SHARD_ROWS, place, 110_000, at % 1000, 400, 533, "", 1, 1


def insert(connection: sqlite3.Connection, start: int, stop: int) -> None:
    """Insert these rows into the table of images."""
    connection.executemany("INSERT INTO image VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", made_rows(start, stop))


class DatabaseTime:
    """The seconds that functions took on the database thread."""

    def __init__(self) -> None:
        self.total_s = self.longest_s = self._cpu_s = 0.0
        self.restart()
        guarded = Database._guarded

        def timed(database: Database, fn: Callable[[sqlite3.Connection], T]) -> T:
            began = time.perf_counter()
            try:
                return guarded(database, fn)
            finally:
                took_s = time.perf_counter() - began
                self.total_s += took_s
                self.longest_s = max(self.longest_s, took_s)

        Database._guarded = timed  # type: ignore[assignment, method-assign]

    def restart(self) -> None:
        """Count from now on, and the processor time of this process with it."""
        self.total_s = self.longest_s = 0.0
        self._cpu_s = time.process_time()

    @property
    def cpu_s(self) -> float:
        """The processor time of this process since then."""
        return time.process_time() - self._cpu_s


def before(data_dir: Path) -> dict[str, Any]:
    """Measure a snapshot and its message as releases without index files made them."""

    async def run() -> dict[str, Any]:
        store, spent, rss = Store.open(data_dir, reserve_bytes=0), DatabaseTime(), rss_mib()
        num_images = (await store.datasets.get("a")).num_images
        began = time.perf_counter()
        array = np.empty(num_images, SNAPSHOT_DTYPE)
        for start in range(0, num_images, OLD_CHUNK_ROWS):
            places = (1, start, min(start + OLD_CHUNK_ROWS, num_images))
            found = await store._database.read(
                lambda c, places=places: np.array(c.execute(ROWS_SQL, places).fetchall(), SNAPSHOT_DTYPE)  # type: ignore[misc]
            )
            array[start : start + len(found)] = found
        values = cell(time.perf_counter() - began, spent, rss_mib() - rss)
        await store.close()
        return {"before: a snapshot": values}

    return asyncio.run(run())


def index(data_dir: Path) -> dict[str, Any]:
    """Measure the first snapshot of a data set without index files, which writes them."""

    async def run() -> dict[str, Any]:
        for path in (data_dir / "datasets").glob("*/*.idx"):
            path.unlink()
        store, spent, rss = Store.open(data_dir, reserve_bytes=0), DatabaseTime(), rss_mib()
        began = time.perf_counter()
        await store.datasets.snapshot("a")
        values = cell(time.perf_counter() - began, spent, rss_mib() - rss)
        await store.close()
        return {"index files of an old data set, once": values}

    return asyncio.run(run())


def snapshots(data_dir: Path) -> dict[str, Any]:
    """Measure a snapshot right after the start of the server, and the ones after it."""

    async def run() -> dict[str, Any]:
        store, rss = Store.open(data_dir, reserve_bytes=0), rss_mib()
        spent = DatabaseTime()
        began = time.perf_counter()
        await store.datasets.snapshot("a")
        first = cell(time.perf_counter() - began, spent, rss_mib() - rss)
        spent.restart()
        began = time.perf_counter()
        for _ in range(CALLS):
            await store.datasets.snapshot("a")
        later = cell((time.perf_counter() - began) / CALLS, spent, rss_mib() - rss)
        later |= {name: later[name] / CALLS for name in ("database_s", "cpu_s")}
        await store.close()
        return {"first snapshot after a start": first, "each later snapshot": later}

    return asyncio.run(run())


def start(data_dir: Path) -> dict[str, Any]:
    """Measure the start of a job: the front makes the message, and another process reads it and all its rows."""

    async def run() -> dict[str, Any]:
        store, spent, rss = Store.open(data_dir, reserve_bytes=0), DatabaseTime(), rss_mib()
        found = {}
        worker = subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdout.readline()
        for what in ("start of a job, after a start", "start of a later job"):
            spent.restart()
            began = time.perf_counter()
            snapshot = await store.datasets.snapshot("a")
            pieces = frame(message(snapshot.rows), MAX_BLOB_BYTES)
            for piece in pieces:
                worker.stdin.write(piece)
            worker.stdin.flush()
            answer = json.loads(worker.stdout.readline())
            assert answer["rows"] == snapshot.version
            found[what] = cell(time.perf_counter() - began, spent, rss_mib() - rss)
            found[what] |= {"message_bytes": sum(map(len, pieces)), "worker_mib": answer["mib"]}
            found[what]["cpu_s"] += answer["cpu_s"]
        worker.stdin.close()
        worker.wait()
        await store.close()
        return found

    return asyncio.run(run())


def message(rows: SnapshotRows) -> StartTraining:
    """Return the message that starts a job on these rows."""
    return StartTraining(
        train_job="job",
        attempt=1,
        settings={},
        dataset_dir=str(rows.directory),
        checkpoint_dir="",
        resume_from="",
        device="cpu",
        num_threads=1,
        cache_bytes=0,
        blobs=rows.blobs,
    )


WORKER = "from benchmarks.large_data.rows import work; work()"


def work() -> None:
    """Read messages that start jobs, and all rows of each, as a trainer does. Print what it took."""
    print("ready", flush=True)
    read, rss = sys.stdin.buffer.read, rss_mib()
    while prefix := read(PREFIX.size):
        header_bytes, blob_bytes = PREFIX.unpack(prefix)
        begin = decode(read(header_bytes), read(blob_bytes))
        assert isinstance(begin, StartTraining)
        cpu_s = time.process_time()
        rows = SnapshotRows.received(begin.dataset_dir, begin.blobs).all()
        cpu_s = time.process_time() - cpu_s
        assert (rows["image_id"][0], rows["image_id"][-1]) == (1 << 32, len(rows) << 32)
        print(json.dumps({"rows": len(rows), "mib": rss_mib() - rss, "cpu_s": cpu_s}), flush=True)
        del rows


MEASURES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "before": before,
    "index": index,
    "snapshots": snapshots,
    "start": start,
}


def cell(seconds: float, spent: DatabaseTime, rss: float) -> dict[str, Any]:
    """Return the values of a cell."""
    return {
        "seconds": seconds,
        "cpu_s": spent.cpu_s,
        "database_s": spent.total_s,
        "longest_visit_s": spent.longest_s,
        "rss_mib": rss,
    }


def rss_mib() -> float:
    """Return the memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MIB


def report() -> str:
    """Return all cells as a table."""
    rows = [["what", "rows", "seconds", "CPU, s", "database thread, s", "longest visit, ms", "front, MiB"]]
    rows[0] += ["trainer, MiB", "load"]
    for one in RESULTS.cells():
        of, values = one["key"], one["values"]
        numbers = [
            f"{values.get(name, math.nan):.{digits}f}"
            for name, digits in (("seconds", 3), ("cpu_s", 3), ("database_s", 4))
        ]
        worker = values.get("worker_mib", math.nan)
        memory = [f"{values['rss_mib']:.0f}", f"{worker:.0f}" if math.isfinite(worker) else ""]
        load = f"{values['load_average']:.1f}" if "load_average" in values else ""
        rows.append([of["what"], f"{of['rows']:,}", *numbers, f"{1e3 * values['longest_visit_s']:.1f}", *memory, load])
    return table(rows)


def document() -> str:
    """Return the newest cells as a table of Markdown, which docs/operations.md shows."""
    cells = {(cell["key"]["what"], cell["key"]["rows"]): cell["values"] for cell in RESULTS.cells()}
    few, many = 10_000_000, 30_000_000

    def both(what: str, rows: int) -> str:
        values = cells[what, rows]
        return f"{figure(values['seconds'])} and {figure(values['database_s'])}"

    def seconds(what: str) -> list[str]:
        return [f"{figure(cells[what, rows]['seconds'])} s" for rows in (few, many)]

    first, later = "first snapshot after a start", "each later snapshot"
    memory = [f"{cells['start of a later job', rows]['rss_mib']:.0f} MiB" for rows in (few, many)]
    old = cells["before: a snapshot", few]["rss_mib"]
    return markdown(
        [
            ["", "10 million images, before", "10 million", "30 million, earlier"],
            [
                "snapshot for FindNeighbors or SelectSamples: seconds, and those of the thread that also commits",
                both("before: a snapshot", few),
                *(both(later, rows) for rows in (few, many)),
            ],
            [
                "the first one after a start of the server, which verifies the index files",
                "as above",
                *(both(first, rows) for rows in (few, many)),
            ],
            ["start of a job, until the trainer has all rows", "not measured", *seconds("start of a later job")],
            [
                "the first one after a start of the server",
                "not measured",
                *seconds("start of a job, after a start"),
            ],
            ["memory of the server's process for this", f"{old:.0f} MiB", *memory],
            ["index files of an old data set, written once", "", *seconds("index files of an old data set, once")],
        ]
    )


def figure(value: float) -> str:
    """Return a number of seconds with two digits that count, and no more than four after the point."""
    return f"{value:.0f}" if value >= 10 else f"{float(f'{value:.2g}'):.4f}".rstrip("0").rstrip(".")


if __name__ == "__main__":
    main()
