"""The evidence after a scenario: what the server says over its API, and what lies in its data directory and in /proc.

Read with other means than the product's own: tarfile for the shards, SQLite's own check for the database.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import manyview
from support.faults.history import Record, record_of
from support.service.harness import ServerProcess

BLOCK_BYTES = 512


@dataclass(frozen=True, kw_only=True)
class ListedImage:
    """An image as the API lists it."""

    image_id: str
    key: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class DatasetEvidence:
    """A data set: how many images it says it has, those it lists, the SHA-256 (hexadecimal) of those in its shards."""

    num_images: int
    listed: Sequence[ListedImage]
    in_shards: Sequence[str]
    damage: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class JobEvidence:
    """A job as it stands, and its log as it is replayed now: all of it, or what came after the event `after`, before
    which the job was in the state `state_before`."""

    state: str
    last_sequence: int
    events: Sequence[Record]
    after: int = 0
    state_before: str = ""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All of it. `left_over`: processes that should be gone, in words; `damage`: what the database's own check says."""

    datasets: dict[str, DatasetEvidence] = field(default_factory=dict)
    jobs: dict[str, JobEvidence] = field(default_factory=dict)
    left_over: Sequence[str] = ()
    damage: Sequence[str] = ()


def dataset_evidence(client: manyview.Client, data_dir: Path, name: str) -> DatasetEvidence:
    """The evidence of a data set. Nobody may be uploading to it."""
    dataset = client.dataset(name)
    listed = [
        ListedImage(image_id=image.image_id, key=image.key, num_bytes=image.num_bytes) for image in client.images(name)
    ]
    in_shards: list[str] = []
    damage: list[str] = []
    for shard in sorted((data_dir / "datasets" / dataset.uid).glob("*.tar")):
        found, problems = read_shard(shard)
        in_shards += found
        damage += [f"{name} {shard.name}: {problem}" for problem in problems]
    return DatasetEvidence(num_images=dataset.num_images, listed=listed, in_shards=in_shards, damage=damage)


def job_evidence(client: manyview.Client, name: str, after: int = 0, state_before: str = "") -> JobEvidence:
    """A job and its log. Where the job goes on, events that come now are left out."""
    info = client.job(name).info
    replayed = (record_of(info.id, event) for event in client.job(name).metrics(after, follow=False))
    events = [event for event in replayed if event["sequence"] <= info.last_sequence]
    return JobEvidence(
        state=info.state, last_sequence=info.last_sequence, events=events, after=after, state_before=state_before
    )


def read_shard(path: Path) -> tuple[list[str], list[str]]:
    """The SHA-256 of each image in a shard as any reader of tar files sees it, and what is wrong with the shard."""
    found: list[str] = []
    problems: list[str] = []
    if path.stat().st_size == 0:
        return found, problems
    end, name, digest = 0, "", ""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                file = tar.extractfile(member)
                data = b"" if file is None else file.read()
                end = member.offset_data + -(-member.size // BLOCK_BYTES) * BLOCK_BYTES
                stem, _, suffix = member.name.partition(".")
                if suffix != "json":
                    name, digest = stem, hashlib.sha256(data).hexdigest()
                elif stem != name or json.loads(data)["sha256"] != digest:
                    problems.append(f"{member.name} does not belong to the image before it")
                else:
                    found.append(digest)
                    name = ""
    except (tarfile.TarError, ValueError, KeyError, EOFError) as error:
        problems.append(f"does not read: {error}")
    if name:
        problems.append(f"the image {name} has no record behind it")
    with path.open("rb") as shard:
        shard.seek(end)
        # tarfile passes over what follows the last member; only zeros may.
        if any(shard.read()):
            problems.append(f"bytes that are no member follow after {end}")
    return found, problems


def database_damage(data_dir: Path) -> list[str]:
    """The verdict of SQLite's own check on a copy of the database and its log, as a crash left them."""
    with tempfile.TemporaryDirectory() as folder:
        for file in data_dir.glob("manyview.sqlite*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, folder)
        with closing(sqlite3.connect(Path(folder) / "manyview.sqlite")) as connection:
            try:
                answers = [str(answer) for (answer,) in connection.execute("PRAGMA integrity_check")]
                answers += [f"foreign key: {row}" for row in connection.execute("PRAGMA foreign_key_check")]
            except sqlite3.DatabaseError as error:
                return [f"database: {error}"]
    return [f"database: {answer}" for answer in answers if answer != "ok"]


def zombies(server: ServerProcess) -> list[str]:
    """Dead children that the server has not reaped, in words."""
    if server.process is None:
        return []
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # pid (name) state parent …; the name may hold anything but ends at the last parenthesis.
            pid = status.parent.name
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(parent) == server.process.pid:
            found.append(f"process {pid} is a zombie")
    return found


def num_open_files(server: ServerProcess) -> int:
    """Descriptors that the running server holds."""
    assert server.process is not None
    return sum(1 for _ in Path(f"/proc/{server.process.pid}/fd").iterdir())
