"""Stores of every schema open, and everything in them is there: `old_stores/make.py` says how they were made."""

from __future__ import annotations

import hashlib
import re
import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from manyview_server.store.database.schema import MIGRATIONS
from manyview_server.store.event_payloads import Scalars
from manyview_server.store.images.shards import ShardReader
from manyview_server.store.jobs import checkpoints
from manyview_server.store.jobs.model_card import ModelCard
from manyview_server.store.records import CheckedImage
from manyview_server.store.store import Store
from manyview_server.store.unusable import StoreMismatched

STORES = sorted((Path(__file__).parent / "old_stores").glob("schema-*.tar.xz"))


@pytest.fixture(params=STORES, ids=lambda path: path.name.partition(".")[0])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The data directory of an old store."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path / "data", filter="data")
    return tmp_path / "data"


def schema_of(data_dir: Path) -> int:
    with closing(sqlite3.connect(data_dir / "manyview.sqlite")) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_there_is_a_store_of_every_schema(tmp_path: Path) -> None:
    versions = set()
    for number, path in enumerate(STORES):
        with tarfile.open(path) as archive:
            archive.extract("manyview.sqlite", tmp_path / str(number), filter="data")
        version = schema_of(tmp_path / str(number))
        assert re.fullmatch(rf"schema-{version}[a-z]?\.tar\.xz", path.name)
        versions.add(version)
    assert versions == set(range(1, len(MIGRATIONS) + 1))
    assert sum(path.stat().st_size for path in STORES) < 500_000


async def test_its_images_jobs_events_and_checkpoints_are_there(old: Path) -> None:
    store = Store.open(old, reserve_bytes=0)
    (dataset,), _ = await store.datasets.list(10)
    assert (dataset.dataset_id, dataset.num_images, dataset.num_rejected, dataset.num_labels) == ("photos", 8, 1, 2)
    listed, _ = await store.datasets.images("photos", ["STORED", "REJECTED"], 100)
    assert len(listed) == 9
    reader = ShardReader(store.datasets.directory(dataset.uid))
    for row in (await store.datasets.snapshot("photos")).rows.all():
        data = reader.read(int(row["shard"]), int(row["offset"]), int(row["length"]))
        assert int.from_bytes(hashlib.sha256(data).digest()[:8], "big") >> 1 == row["image_id"]
    reader.close()
    (job,), _ = await store.jobs.list(10)
    assert (job.train_job_id, job.state, job.method, job.num_images) == ("first", "SUCCEEDED", "simclr", 8)
    events = await store.events.read("first", 0, 1000)
    assert [event.sequence for event in events] == list(range(1, job.last_sequence + 1))
    assert [e.step for e in events if isinstance(e.payload, Scalars) and "loss" in e.payload.values] == [1, 2]
    (checkpoint,) = await store.checkpoints.list("first")
    checkpoints.verify(Path(checkpoint.directory))
    card = ModelCard.from_json(checkpoints.read_state(Path(checkpoint.directory))["model"])
    assert card == ModelCard.from_json(checkpoint.model)
    assert (card.step, card.backbone, card.embedding_dim) == (2, "resnet9", 0)
    assert (card.stem_relu, card.patch_size) == (True, None)
    await store.close()
    assert schema_of(old) == len(MIGRATIONS)


async def test_images_that_are_sent_again_are_duplicates_and_new_ones_are_stored(old: Path) -> None:
    store = Store.open(old, reserve_bytes=0)
    (dataset,), _ = await store.datasets.list(10)
    row = (await store.datasets.snapshot("photos")).rows.all()[0]
    reader = ShardReader(store.datasets.directory(dataset.uid))
    data = reader.read(int(row["shard"]), int(row["offset"]), int(row["length"]))
    reader.close()
    images = [
        CheckedImage(
            data=file, key="", label="", sha256=hashlib.sha256(file).digest(), extension="png", width=8, height=8
        )
        for file in (data, b"a new one")
    ]
    session = await store.uploads.open("photos", "again")
    assert [outcome.outcome for outcome in await session.append(1, images)] == ["DUPLICATE", "STORED"]
    await store.close()
    store = Store.open(old, reserve_bytes=0)
    assert (await store.datasets.get("photos")).num_images == 9
    await store.close()


async def test_after_the_upgrade_the_database_from_before_it_is_refused(old: Path) -> None:
    before = (old / "manyview.sqlite").read_bytes()
    await Store.open(old, reserve_bytes=0).close()
    shutil.copy(old / "manyview.sqlite", old / "right")
    (old / "manyview.sqlite").write_bytes(before)
    with pytest.raises(StoreMismatched, match="seen generation"):
        Store.open(old)
    assert (old / "manyview.sqlite").read_bytes() == before, "it was not brought up to date"
    (old / "right").replace(old / "manyview.sqlite")
    await Store.open(old, reserve_bytes=0).close()
