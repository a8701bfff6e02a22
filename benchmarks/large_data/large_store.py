"""Measure what a data set of ten million images costs the store, and how long anything holds its database thread.

Rows are made up: ids in random order as hashes are, keys of 33 characters, a thousand labels, one image in a hundred
unreadable and as many refused. Each figure is that of the data set of all rows, beside one of few rows in the same
database. Commits and event logs wait for the longest visit to the database thread; the goal is 50 ms.

    python -m benchmarks.large_data.large_store make --rows 10000000  # minutes, and 3 GB of disk
    python -m benchmarks.large_data.large_store measure  # one part after another; the last uses up the store
    python -m benchmarks.large_data.large_store report
    python -m benchmarks.large_data.large_store clean
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.large_data.rows import DatabaseTime
from benchmarks.results import Results, table

from manyview_server.store.images.image_rows import PLACES_BY_KEY
from manyview_server.store.records import CheckedImage, ImageRef
from manyview_server.store.store import Store

RESULTS = Results("large_store")
FOLDER = Path(tempfile.gettempdir()) / "manyview-large-store"
SHARD_ROWS = 9_600
INSERT_ROWS = 200_000
FEW_ROWS = 10_000
NUM_LABELS = 1_000
ONE_IN = 100
GOAL_MS = 50
BATCH_IMAGES, BATCHES = 256, 64
IMAGE_BYTES = 2_048
DELETION_S = 30
MANY, FEW = "many", "few"
MULTIPLIER = 0x9E3779B97F4A7C15
"""Multiplication by an odd number visits the numbers of 64 bits in an order that looks random."""


def main() -> None:
    """Make the rows, measure what is missing, print the table, or delete the store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("make", "measure", "report", "clean", "child"))
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--code", default="now", help="a name for the code that is measured")
    parser.add_argument("--only", choices=tuple(MEASURES), action="append", help="measure these parts alone")
    parser.add_argument("--name", choices=tuple(MEASURES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    match arguments.part:
        case "make":
            asyncio.run(make(arguments.rows))
        case "clean":
            shutil.rmtree(FOLDER, ignore_errors=True)
        case "child":
            print(json.dumps(asyncio.run(MEASURES[arguments.name]())))
        case "measure":
            measure(arguments.code, arguments.only or list(MEASURES))
            print(report(RESULTS.cells()))
        case _:
            print(report(RESULTS.cells()))


def measure(code: str, names: list[str]) -> None:
    """Measure the parts that are missing, each in a process of its own."""
    num_rows = json.loads((FOLDER / "made.json").read_text())["rows"]
    for name in names:
        if RESULTS.find(part=name, rows=num_rows, code=code) is None:
            command = [sys.executable, "-m", "benchmarks.large_data.large_store", "child", "--name", name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            RESULTS.add({"part": name, "rows": num_rows, "code": code}, found | {"load": round(os.getloadavg()[0], 1)})


# --- the store


async def make(num_rows: int) -> None:
    """Write the rows of both data sets into a new store."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    store = Store.open(FOLDER / "data", reserve_bytes=0)
    database = store._database
    await database.read(lambda c: c.execute("PRAGMA synchronous=OFF").fetchone())
    indexes = await database.read(partial(sql_of_indexes))
    await database.read(lambda c: [c.execute(f"DROP INDEX {name}") for name, _ in indexes])
    for name, rows in ((FEW, FEW_ROWS), (MANY, num_rows)):
        await store.datasets.create(name)
        pk = await database.read(partial(pk_of, name=name))
        for start in range(0, rows, INSERT_ROWS):
            await database.write(partial(insert, pk=pk, start=start, stop=min(start + INSERT_ROWS, rows)))
        await database.write(partial(finish, pk=pk, rows=rows))
    # Built at the end: rows in random order would take an hour.
    for _, sql in indexes:
        await database.read(partial(run_sql, sql=sql))
    await store.close()
    (FOLDER / "made.json").write_text(json.dumps({"rows": num_rows}))


def sql_of_indexes(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return the indexes of the table of images."""
    return connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'image' AND sql <> ''"
    ).fetchall()


def run_sql(connection: sqlite3.Connection, sql: str, values: tuple[Any, ...] = ()) -> None:
    """Run one statement, and read all of its rows."""
    connection.execute(sql, values).fetchall()


def pk_of(connection: sqlite3.Connection, name: str) -> int:
    """Return the primary key of a data set."""
    return int(connection.execute("SELECT pk FROM dataset WHERE dataset_id = ?", (name,)).fetchone()[0])


def image_id(pk: int, at: int) -> int:
    """Return the id of an image."""
    return ((at + 1) * MULTIPLIER + pk) % (1 << 64) >> 1


def key_of(at: int) -> str:
    """Return the key of an image."""
    return f"photographs/{at // 1000:06d}/{at:010d}.jpg"


def made_rows(pk: int, start: int, stop: int) -> Iterator[tuple[Any, ...]]:
    """Yield rows of the table of images."""
    for at in range(start, stop):
        place = 512 + 112_000 * (at % SHARD_ROWS)
        yield (
            pk,
            at + 1,
            image_id(pk, at),
            at // SHARD_ROWS,
            place,
            110_000,
            at % NUM_LABELS,
            400,
            533,
            key_of(at),
            1,
            1,
        )


def insert(connection: sqlite3.Connection, pk: int, start: int, stop: int) -> None:
    """Insert rows of images, and of the unreadable and refused ones among them."""
    connection.executemany(f"INSERT INTO image VALUES ({', '.join('?' * 12)})", made_rows(pk, start, stop))
    some = range(start, stop, ONE_IN)
    connection.executemany(
        "INSERT INTO unreadable VALUES (?, ?, 'DECODE_FAILED', 'the file is cut off')", ((pk, at + 1) for at in some)
    )
    connection.executemany(
        "INSERT INTO rejected VALUES (?, ?, ?, '', 'IMAGE_EMPTY', 'the image has no bytes', 0)",
        ((pk, at // ONE_IN + 1, key_of(at)) for at in some),
    )


def finish(connection: sqlite3.Connection, pk: int, rows: int) -> None:
    """Insert the labels, and set the counters of the data set."""
    connection.executemany("INSERT INTO label VALUES (?, ?, ?)", ((pk, n, f"label {n}") for n in range(NUM_LABELS)))
    counts = (rows, rows * 110_000, NUM_LABELS, rows, rows // ONE_IN, rows // ONE_IN, (rows - 1) // SHARD_ROWS + 1, pk)
    connection.execute(
        "UPDATE dataset SET num_images = ?, num_bytes = ?, num_labels = ?, num_labelled = ?, num_rejected = ?, "
        "num_unreadable = ?, shard = ?, shard_bytes = 0 WHERE pk = ?",
        counts,
    )


# --- the parts


@asynccontextmanager
async def as_made() -> Any:
    """Open the store."""
    store = Store.open(FOLDER / "data", reserve_bytes=0)
    try:
        yield store
    finally:
        await store.close()


async def timed(spent: DatabaseTime, calls: Sequence[Callable[[], Awaitable[Any]]]) -> dict[str, Any]:
    """Make calls one after the other. Return their times, and the visits to the database thread."""
    spent.total_s = spent.longest_s = 0.0
    seconds = []
    for call in calls:
        began = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - began)
    return {
        "calls": len(calls),
        "median_ms": 1e3 * statistics.median(seconds),
        "longest_ms": 1e3 * max(seconds),
        "database_s": spent.total_s,
        "longest_visit_ms": 1e3 * spent.longest_s,
    }


async def listing() -> dict[str, Any]:
    """Pages of images: the first, ones in the middle, and ones with filters."""
    async with as_made() as store:
        spent, found = DatabaseTime(), {}
        for name in (FEW, MANY):
            num_images = (await store.datasets.get(name)).num_images
            starts = np.random.default_rng(0).integers(0, num_images, 20).tolist()
            kinds = {
                "1,000 images": ([], 1_000, [f"i{at}" for at in starts]),
                "10,000 images": ([], 10_000, [f"i{at}" for at in starts[:5]]),
                "1,000 STORED": (["STORED"], 1_000, [f"i{at}" for at in starts]),
                "1,000 UNREADABLE": (["UNREADABLE"], 1_000, [f"i{at}" for at in starts]),
                "1,000 REJECTED": (["REJECTED"], 1_000, [f"r{at // ONE_IN}" for at in starts]),
            }
            for what, (statuses, size, tokens) in kinds.items():
                calls = [partial(store.datasets.images, name, statuses, size, token) for token in tokens]
                found[f"ListImages, {what}, {name}"] = await timed(spent, calls)
        return found


async def lookups() -> dict[str, Any]:
    """Single rows: a data set, an upload, images by key and id, images by position."""
    async with as_made() as store:
        spent, found = DatabaseTime(), {}
        for name in (FEW, MANY):
            dataset = await store.datasets.get(name)
            pk = await store._database.read(partial(pk_of, name=name))
            drawn = np.random.default_rng(1).integers(0, dataset.num_images, (3, 10, 1_000)).tolist()
            by_key = [[ImageRef(key=key_of(at)) for at in part] for part in drawn[0]]
            by_id = [[ImageRef(image_id=image_id(pk, at)) for at in part] for part in drawn[1]]
            kinds: dict[str, list[Callable[[], Awaitable[Any]]]] = {
                "GetDataset": [partial(store.datasets.get, name)] * 20,
                "ListDatasets": [partial(store.datasets.list, 100)] * 20,
                "1,000 images by key": [partial(store.datasets.find_images, name, refs) for refs in by_key],
                "1,000 images by id": [partial(store.datasets.find_images, name, refs) for refs in by_id],
                "1,000 images by position": [partial(store.datasets.images_at, dataset.uid, part) for part in drawn[2]],
                "labels": [partial(store.datasets.labels, dataset.uid)] * 5,
                "unreadable positions": [partial(store.datasets.unreadable_positions, dataset.uid, dataset.num_images)]
                * 2,
                "quarantined ids": [partial(store.datasets.unreadable_ids, dataset.uid, "DECODER_CRASHED")] * 2,
                "mark an image": [
                    partial(store.datasets.mark_unreadable, dataset.uid, image_id(pk, at), "DECODE_FAILED", "again")
                    for at in range(0, 20 * ONE_IN, ONE_IN)
                ],
            }
            for what, calls in kinds.items():
                found[f"{what}, {name}"] = await timed(spent, calls)
            unnamed = PLACES_BY_KEY.replace("INDEXED BY image_by_key", "")
            old = partial(
                store._database.read, lambda c, pk=pk, sql=unnamed: c.execute(sql, (pk, key_of(5))).fetchall()
            )
            found[f"before: 1 image by key, {name}"] = await timed(spent, [old] * 2)
        return found


def fresh(number: int) -> list[CheckedImage]:
    """Return a batch of new images, as they are after their check."""
    images = []
    for at in range(BATCH_IMAGES):
        data = os.urandom(IMAGE_BYTES)
        digest = data[:32]
        key = f"new/{number:06d}/{at:010d}.jpg"
        images.append(
            CheckedImage(data=data, key=key, label="label 1", sha256=digest, extension="jpg", width=9, height=9)
        )
    return images


async def changes() -> dict[str, Any]:
    """Upload batches of small images, several under way as in a stream, and then delete both data sets."""
    (FOLDER / "made.json").unlink()
    async with as_made() as store:
        spent, found = DatabaseTime(), {}
        watch_ingest(store, spent)
        for name in (FEW, MANY):
            session = await store.uploads.open(name, "new")
            batches = [fresh(number) for number in range(BATCHES)]
            found[f"upload of {BATCHES * BATCH_IMAGES:,} images, {name}"] = await timed(
                spent, [partial(append_all, session, batches)]
            )
            found[f"continue an upload, {name}"] = await timed(spent, [partial(store.uploads.open, name, "new")] * 5)
        for name in (FEW, MANY):
            found[f"delete, at most {DELETION_S} s, {name}"] = await timed(spent, [partial(delete, store, name)])
        left = await store._database.read(lambda c: c.execute("SELECT count(*) FROM image").fetchone())
        found[f"delete, at most {DELETION_S} s, {MANY}"]["rows_left"] = left[0]
        spent.longest_s = 0.0
        chunk = "SELECT position FROM image ORDER BY dataset, position LIMIT 20000"
        sql = f"DELETE FROM image WHERE dataset = ? AND position IN ({chunk})"
        pk = await store._database.read(lambda c: (c.execute("SELECT max(dataset) FROM image").fetchone())[0])
        if pk is not None:
            old = partial(store._database.write, partial(run_sql, sql=sql, values=(pk,)))
            found[f"before: a chunk of a deletion, {MANY}"] = await timed(spent, [old] * 3)
        return found


async def append_all(session: Any, batches: list[list[CheckedImage]]) -> None:
    """Append batches, of which eight are under way at any time."""
    room = asyncio.Semaphore(8)

    async def append(number: int, images: list[CheckedImage]) -> None:
        async with room:
            await session.append(number, images)

    await asyncio.gather(*(append(number, images) for number, images in enumerate(batches, 1)))


async def delete(store: Store, name: str) -> None:
    """Delete a data set. Its rows are removed for a limited time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DELETION_S):
            await store.datasets.delete(name)


def watch_ingest(store: Store, spent: DatabaseTime) -> None:
    """Time whole groups, too: they hold the database thread while the shards are synced."""
    ingest = store.uploads._ingest
    commit = ingest.commit

    def timed_commit(group: Any) -> Any:
        began = time.perf_counter()
        try:
            return commit(group)
        finally:
            spent.longest_s = max(spent.longest_s, time.perf_counter() - began)

    ingest.commit = timed_commit  # type: ignore[method-assign]


async def start() -> dict[str, Any]:
    """Start after a kill, close, and the memory of an open store."""
    spent = DatabaseTime()
    began = time.perf_counter()
    async with as_made():
        opened_s = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = (FOLDER / "data" / "manyview.sqlite").stat().st_size
    copied = time.perf_counter()
    subprocess.run(["cp", FOLDER / "data" / "manyview.sqlite", FOLDER / "copy"], check=True)
    copied = time.perf_counter() - copied
    (FOLDER / "copy").unlink()
    one = {"calls": 1, "database_s": spent.total_s, "longest_visit_ms": 1e3 * spent.longest_s}
    return {
        "open the store": one | {"median_ms": 1e3 * opened_s, "longest_ms": 1e3 * opened_s, "peak_mib": peak},
        "copy the database of a stopped server": {
            "calls": 1, "median_ms": 1e3 * copied, "longest_ms": 1e3 * copied, "database_s": 0.0,
            "longest_visit_ms": 0.0, "bytes": size,
        },
    }  # fmt: skip


MEASURES: dict[str, Callable[[], Coroutine[Any, Any, dict[str, Any]]]] = {
    "start": start,
    "listing": listing,
    "lookups": lookups,
    "changes": changes,
}


def report(cells: list[dict[str, Any]]) -> str:
    """Return all cells as a table."""
    rows = [["code", "what", "calls", "median ms", "longest ms", "database thread, s", "longest visit, ms"]]
    for cell in cells:
        for what, values in cell["values"].items():
            if isinstance(values, dict):
                numbers = [f"{values[name]:.1f}" for name in ("median_ms", "longest_ms")]
                visits = [f"{values['database_s']:.3f}", f"{values['longest_visit_ms']:.1f}"]
                rows.append([cell["key"]["code"], what, str(values["calls"]), *numbers, *visits])
    return table(rows)


def document(cells: list[dict[str, Any]] | None = None) -> str:
    """Return the table of the page on performance: each call to the data set of few rows beside that of many."""
    merged: dict[str, dict[str, Any]] = {}
    for cell in RESULTS.cells() if cells is None else cells:
        merged |= {what: values for what, values in cell["values"].items() if isinstance(values, dict)}
    whats = dict.fromkeys(what.removesuffix(f", {FEW}").removesuffix(f", {MANY}") for what in merged)
    lines = [
        f"| call | median, {FEW} rows, ms | {MANY} rows, ms | longest visit, {FEW} rows, ms | {MANY} rows, ms |",
        "| --- | --- | --- | --- | --- |",
    ]
    for what in whats:
        sides = [merged.get(f"{what}, {name}") or (merged.get(what) if name == MANY else None) for name in (FEW, MANY)]
        numbers = [f"{side[name]:.1f}" if side else "" for name in ("median_ms", "longest_visit_ms") for side in sides]
        lines.append(f"| {what} | {' | '.join(numbers)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
