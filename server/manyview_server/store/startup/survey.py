"""Compare a data directory with its database, before anything in the directory is changed.

A crash leaves little that the database does not know: at most one group of batches after the last committed image of a
data set, the beginning of the next shards, and the copy of a checkpoint for a job that was never created. Anything more
means that the database is not the one that belongs to the data, and the server must not start on it.

Only files and directories with names that the server gives are looked at. Anything else belongs to somebody else.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from manyview_server.store.images.group_limit import ANY_GROUP, MAX_NEW_SHARDS, GroupLimit
from manyview_server.store.images.shards import Position, scan, shards_in
from manyview_server.store.jobs import checkpoints
from manyview_server.store.startup.generation import Mark

UID = re.compile(r"[0-9a-f]{32}")
# The most problems that a message states. Further problems are only counted.
MAX_STATED_PROBLEMS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The contents of the database. `mark` is None if it has no generation yet, or if there is no database."""

    mark: Mark | None = None
    limit: GroupLimit = ANY_GROUP
    datasets: dict[str, Position] = field(default_factory=dict)
    """The end of the committed bytes of each data set, by its uid."""
    jobs: dict[str, set[str]] = field(default_factory=dict)
    """The names of each job's checkpoints, by the job's uid."""
    deleted: frozenset[str] = frozenset()
    """Directories that a request deleted and that are being removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTail:
    """The bytes of a shard from `start` on, which the database does not know."""

    path: Path
    start: int
    by_crash: bool
    """True if a crash can have left them, because there are no more than one group can have added."""


@dataclass(slots=True)
class Survey:
    """The result of a survey."""

    problems: list[str] = field(default_factory=list)
    """Sentences that say why the database cannot be the right one."""
    unknown: list[Path] = field(default_factory=list)
    """Files and directories that the database does not know."""
    unlisted: list[Path] = field(default_factory=list)
    """Unregistered checkpoints of known jobs. A crash leaves some, so they are only looked for if there are
    problems."""
    tails: list[ShardTail] = field(default_factory=list)
    """The bytes after the committed end of each data set."""
    empty: list[Path] = field(default_factory=list)
    """Directories, without any file, of jobs that were never created."""


def as_text(problems: list[str]) -> str:
    """Return the problems as one text. Of many, the last ones are only counted."""
    more = len(problems) - MAX_STATED_PROBLEMS
    return "; ".join([*problems[:MAX_STATED_PROBLEMS], *([f"and {more} more"] if more > 0 else [])])


def read_known(connection: sqlite3.Connection) -> Known:
    """Read what a database of any version knows. One without tables knows nothing."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        return Known()
    jobs: dict[str, set[str]] = {uid: set() for (uid,) in connection.execute("SELECT uid FROM job")}
    for uid, name in connection.execute("SELECT uid, directory FROM checkpoint JOIN job ON job.pk = checkpoint.job"):
        jobs[uid].add(name)
    rows = connection.execute("SELECT uid, shard, shard_bytes FROM dataset")
    datasets = {uid: Position(shard, end) for uid, shard, end in rows}
    deleted = frozenset(directory for (directory,) in connection.execute("SELECT directory FROM trash"))
    if version < 4:
        return Known(datasets=datasets, jobs=jobs, deleted=deleted)
    sql = "SELECT uid, generation, max_group_images, max_group_bytes FROM store"
    uid, generation, images, num_bytes = connection.execute(sql).fetchone()
    limit = GroupLimit(images=images, num_bytes=num_bytes)
    return Known(mark=Mark(uid, generation), limit=limit, datasets=datasets, jobs=jobs, deleted=deleted)


def compare(data_dir: Path, known: Known, mark: Mark | None) -> Survey:
    """Compare a directory, whose own mark is `mark`, with the contents of its database. It changes nothing."""
    survey = Survey()
    _compare_marks(survey, known.mark, mark)
    for directory in _directories(data_dir, "datasets", known.deleted):
        if directory.name in known.datasets:
            _check_shards(survey, directory, known.datasets[directory.name], known.limit)
        else:
            _check_unknown_dataset(survey, directory)
    jobs = list(_directories(data_dir, "jobs", known.deleted))
    for directory in jobs:
        if directory.name not in known.jobs:
            _check_unknown_job(survey, directory)
    if survey.problems:
        for directory in jobs:
            survey.unlisted += _unlisted(directory, known.jobs[directory.name]) if directory.name in known.jobs else []
    return survey


def _compare_marks(survey: Survey, database: Mark | None, beside: Mark | None) -> None:
    if beside is None:
        return
    if database is None:
        survey.problems.append(
            "the database is missing, new, or from before an upgrade, and the directory has seen generation "
            f"{beside.generation}"
        )
    elif database.store != beside.store:
        text = f"the database belongs to another store ({database.store}) than this directory ({beside.store})"
        survey.problems.append(text)
    elif database.generation < beside.generation:
        survey.problems.append(
            f"the database is an older copy: its generation is {database.generation}, and the directory has seen "
            f"generation {beside.generation}"
        )


def _directories(data_dir: Path, kind: str, deleted: frozenset[str]) -> Iterator[Path]:
    parent = data_dir / kind
    for path in sorted(parent.iterdir()) if parent.is_dir() else ():
        if (
            UID.fullmatch(path.name)
            and path.is_dir()
            and not path.is_symlink()
            and f"{kind}/{path.name}" not in deleted
        ):
            yield path


def _check_shards(survey: Survey, directory: Path, committed: Position, limit: GroupLimit) -> None:
    """Check the bytes after the committed position of a data set."""
    for shard, path in shards_in(directory).items():
        if shard < committed.shard:
            continue
        start = committed.offset if shard == committed.shard else 0
        size = path.stat().st_size
        if size <= start:
            continue
        allowed = limit if shard <= committed.shard + MAX_NEW_SHARDS else GroupLimit(images=0, num_bytes=0)
        too_many = _exceeds(path, start, allowed)
        if too_many:
            survey.problems.append(
                f"datasets/{directory.name}/{path.name} holds whole images after byte {start:,}, where it ends "
                "according to the database, and more of them than the server can have been writing when it was killed"
            )
        if shard > committed.shard:
            survey.unknown.append(path)
        else:
            by_crash = not too_many and size - start <= limit.tail_bytes
            survey.tails.append(ShardTail(path=path, start=start, by_crash=by_crash))


def _exceeds(path: Path, start: int, limit: GroupLimit) -> bool:
    """Do more whole images follow `start` than one group can hold?"""
    num_bytes = 0
    for images, image in enumerate(scan(path, start), start=1):
        num_bytes += image.length
        if images > limit.images or num_bytes > limit.num_bytes:
            return True
    return False


def _check_unknown_dataset(survey: Survey, directory: Path) -> None:
    """Note an unknown data set. One without images is harmless: a crash while a data set is created leaves it."""
    if any(path.stat().st_size for path in shards_in(directory).values()):
        survey.problems.append(
            f"datasets/{directory.name} holds shards with images of a data set that the database does not know"
        )
        survey.unknown.append(directory)


def _unlisted(directory: Path, listed: set[str]) -> list[Path]:
    found = (directory / "checkpoints").iterdir() if (directory / "checkpoints").is_dir() else ()
    return [path for path in found if checkpoints.parse_name(path) and path.name not in listed]


def _check_unknown_job(survey: Survey, directory: Path) -> None:
    """Note an unknown job. A crash during its creation leaves no checkpoint but the copy with which it should start."""
    names = [checkpoints.parse_name(path) for path in _unlisted(directory, set())]
    if any(attempt > 0 for _, attempt in filter(None, names)):
        survey.problems.append(f"jobs/{directory.name} holds checkpoints of a job that the database does not know")
    has_files = any(files for _, _, files in os.walk(directory))
    (survey.unknown if has_files else survey.empty).append(directory)
