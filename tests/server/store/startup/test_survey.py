"""A start finds data that the database does not know, and refuses, moves it aside, or leaves it alone."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from manyview_server.store.images.group_limit import GroupLimit
from manyview_server.store.images.shard_writers import END_OF_ARCHIVE, ShardWriter
from manyview_server.store.images.shards import Position, image_id_of, scan, shard_path
from manyview_server.store.jobs import checkpoints
from manyview_server.store.jobs.job_verbs import CANCEL
from manyview_server.store.records import CheckedImage, Checkpoint
from manyview_server.store.store import Store
from manyview_server.store.unusable import StoreMismatched

MakeImage = Callable[..., CheckedImage]

DATABASE = "manyview.sqlite"
GROUP = GroupLimit(images=4, num_bytes=4000)
UNKNOWN = "0123456789abcdef" * 2


def files(data_dir: Path) -> dict[str, str]:
    """Return a digest of every file except those of the database."""
    ours = {path for path in data_dir.rglob("*") if path.is_file() and DATABASE not in path.name}
    return {str(path.relative_to(data_dir)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(ours)}


def reopen(data_dir: Path, *, accept_mismatch: bool = False) -> Store:
    return Store.open(data_dir, reserve_bytes=0, limit=GROUP, accept_mismatch=accept_mismatch)


async def fill(data_dir: Path, image: MakeImage, count: int = 3) -> tuple[str, str]:
    """Make a data set "a" with some images and a job "j" with a checkpoint. Return the uids of both."""
    store = reopen(data_dir)
    dataset = await store.datasets.create("a")
    await (await store.uploads.open("a", "u")).append(1, [image(number) for number in range(count)])
    job = await store.jobs.create("j", "a", "simclr", {}, "1")
    await add_checkpoint(store, job.uid, 2)
    await store.close()
    return dataset.uid, job.uid


async def add_checkpoint(store: Store, uid: str, step: int) -> Checkpoint:
    directory = store.checkpoints.directory(uid) / checkpoints.name(step, 1)
    checkpoints.write(directory, {checkpoints.STATE_JSON: b'{"step": %d}' % step})
    return await store.checkpoints.add(
        "j", step=step, epoch=1, attempt=1, directory=str(directory), num_bytes=1, model={}
    )


def forget_the_generation(data_dir: Path) -> None:
    """Make the store look like one of a release without generations, so that only the files can reveal a mismatch."""
    (data_dir / "GENERATION").unlink()
    with closing(sqlite3.connect(data_dir / DATABASE)) as connection:
        connection.execute("UPDATE store SET generation = 0")
        connection.commit()


def write_behind(directory: Path, start: Position, count: int, num_bytes: int = 100) -> None:
    """Append whole records after a position, as a server does before it commits."""
    writer = ShardWriter(directory, start)
    for number in range(count):
        data = f"late {start.shard} {number} ".encode().ljust(num_bytes, b".")
        digest = hashlib.sha256(data).digest()
        writer.append(image_id_of(digest), "jpg", data, {"sha256": digest.hex(), "key": str(number)})
    writer.sync()
    writer.close()


def end_of(directory: Path, shard: int = 0) -> Position:
    return Position(shard, list(scan(shard_path(directory, shard)))[-1].end)


def set_aside(data_dir: Path) -> list[str]:
    """Return the files that were moved aside, without the directory that has the time in its name."""
    moved = [path.relative_to(data_dir / "set-aside") for path in (data_dir / "set-aside").rglob("*") if path.is_file()]
    return sorted(str(path.relative_to(path.parts[0])) for path in moved)


async def test_a_deleted_database_is_refused_and_nothing_is_changed(tmp_path: Path, image: MakeImage) -> None:
    dataset, job = await fill(tmp_path, image)
    (tmp_path / DATABASE).unlink()
    before = files(tmp_path)
    for _ in range(2):
        with pytest.raises(StoreMismatched, match="--accept-mismatched-database") as caught:
            reopen(tmp_path)
    assert files(tmp_path) == before
    assert not (tmp_path / DATABASE).exists()
    message = str(caught.value)
    assert f"datasets/{dataset} holds shards with images" in message
    assert f"jobs/{job} holds checkpoints" in message
    assert "has seen generation 2" in message
    assert "Restore the database" in message


async def test_data_is_enough_to_refuse_a_deleted_database(tmp_path: Path, image: MakeImage) -> None:
    await fill(tmp_path, image)
    (tmp_path / DATABASE).unlink()
    (tmp_path / "GENERATION").unlink()
    with pytest.raises(StoreMismatched, match="holds shards with images of a data set that the database does not know"):
        reopen(tmp_path)


async def test_an_empty_database_file_is_no_database_and_its_log_is_kept(tmp_path: Path, image: MakeImage) -> None:
    await fill(tmp_path, image)
    (tmp_path / DATABASE).write_bytes(b"")
    (tmp_path / f"{DATABASE}-wal").write_bytes(b"what a crash left")
    with pytest.raises(StoreMismatched, match=r"its log manyview\.sqlite-wal exists"):
        reopen(tmp_path)
    assert (tmp_path / f"{DATABASE}-wal").read_bytes() == b"what a crash left"
    await reopen(tmp_path, accept_mismatch=True).close()
    assert f"{DATABASE}-wal" in set_aside(tmp_path)


async def test_an_older_database_is_refused_and_the_right_one_starts_with_everything(
    tmp_path: Path, image: MakeImage
) -> None:
    """Images and a checkpoint that came after the copy was made are all there after the refusal."""
    _, job = await fill(tmp_path, image)
    older = (tmp_path / DATABASE).read_bytes()
    store = reopen(tmp_path)
    await (await store.uploads.open("a", "late")).append(1, [image(10)])
    await add_checkpoint(store, job, 4)
    await store.close()
    right, before = (tmp_path / DATABASE).read_bytes(), files(tmp_path)
    (tmp_path / DATABASE).write_bytes(older)
    with pytest.raises(StoreMismatched, match="older copy"):
        reopen(tmp_path)
    assert files(tmp_path) == before
    (tmp_path / DATABASE).write_bytes(right)
    store = reopen(tmp_path)
    assert (await store.datasets.get("a")).num_images == 4
    assert [one.step for one in await store.checkpoints.list("j")] == [4, 2]
    await store.close()
    assert set_aside(tmp_path) == []


@pytest.mark.parametrize("num_late", [1, 6])
async def test_the_flag_starts_an_older_database_and_keeps_all_that_it_does_not_know(
    tmp_path: Path, image: MakeImage, caplog: pytest.LogCaptureFixture, num_late: int
) -> None:
    """Images that came later are kept, also where a crash could have left as many."""
    dataset, job = await fill(tmp_path, image)
    older = (tmp_path / DATABASE).read_bytes()
    store = reopen(tmp_path)
    await (await store.uploads.open("a", "late")).append(1, [image(10 + n, num_bytes=500) for n in range(num_late)])
    new = await store.datasets.create("b")
    await (await store.uploads.open("b", "u")).append(1, [image(20)])
    await add_checkpoint(store, job, 4)
    await store.close()
    lost = {digest for name, digest in files(tmp_path).items() if new.uid in name or "000000004-1" in name}
    committed = end_of(tmp_path / "datasets" / dataset)
    (tmp_path / DATABASE).write_bytes(older)
    caplog.set_level(logging.WARNING)
    store = reopen(tmp_path, accept_mismatch=True)
    assert (await store.datasets.get("a")).num_images == 3
    assert [one.step for one in await store.checkpoints.list("j")] == [2]
    await store.close()
    kept = set_aside(tmp_path)
    assert f"datasets/{new.uid}/shard-00000000.tar" in kept
    assert f"jobs/{job}/checkpoints/000000004-1/{checkpoints.STATE_JSON}" in kept
    (tail,) = (name for name in kept if "from-byte" in name)
    (directory,) = (tmp_path / "set-aside").iterdir()
    assert len(list(scan(directory / tail))) == num_late
    assert (directory / tail).stat().st_size == committed.offset - end_of(tmp_path / "datasets" / dataset).offset
    assert lost <= set(files(directory).values())
    assert caplog.text.count("moved to") == 3
    await reopen(tmp_path).close()


async def test_the_flag_starts_with_a_new_database_where_there_is_none_and_keeps_everything(
    tmp_path: Path, image: MakeImage
) -> None:
    await fill(tmp_path, image)
    (tmp_path / DATABASE).unlink()
    before = {name: digest for name, digest in files(tmp_path).items() if name.startswith(("datasets/", "jobs/"))}
    store = reopen(tmp_path, accept_mismatch=True)
    assert (await store.datasets.list(10))[0] == []
    await store.close()
    (directory,) = (tmp_path / "set-aside").iterdir()
    assert files(directory) == before
    await reopen(tmp_path).close()


async def test_the_flag_on_a_database_that_matches_changes_nothing(
    tmp_path: Path, image: MakeImage, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(tmp_path, image)
    store = reopen(tmp_path, accept_mismatch=True)
    assert (await store.datasets.get("a")).num_images == 3
    await store.close()
    assert "remove the setting" in caplog.text
    assert not (tmp_path / "set-aside").exists()


async def test_one_group_behind_the_committed_images_is_a_crash_and_one_image_more_is_not(
    tmp_path: Path, image: MakeImage
) -> None:
    dataset, _ = await fill(tmp_path, image)
    forget_the_generation(tmp_path)
    directory = tmp_path / "datasets" / dataset
    committed = end_of(directory)
    write_behind(directory, committed, GROUP.images + 1)
    with pytest.raises(StoreMismatched, match=rf"whole images after byte {committed.offset:,}"):
        reopen(tmp_path)
    write_behind(directory, committed, GROUP.images)
    await reopen(tmp_path).close()
    assert shard_path(directory, 0).stat().st_size == committed.offset
    assert set_aside(tmp_path) == []


async def test_the_bytes_of_one_group_are_a_bound_too(tmp_path: Path, image: MakeImage) -> None:
    dataset, _ = await fill(tmp_path, image)
    forget_the_generation(tmp_path)
    directory = tmp_path / "datasets" / dataset
    write_behind(directory, end_of(directory), 2, num_bytes=GROUP.num_bytes // 2 + 1)
    with pytest.raises(StoreMismatched):
        reopen(tmp_path)


async def test_a_tail_is_judged_by_the_limits_of_the_server_that_wrote_it(tmp_path: Path, image: MakeImage) -> None:
    dataset, _ = await fill(tmp_path, image)
    directory = tmp_path / "datasets" / dataset
    await Store.open(tmp_path, reserve_bytes=0, limit=GroupLimit(images=100, num_bytes=10_000)).close()
    committed = end_of(directory)
    write_behind(directory, committed, 50)
    await reopen(tmp_path).close()
    assert shard_path(directory, 0).stat().st_size == committed.offset
    write_behind(directory, committed, 50)
    with pytest.raises(StoreMismatched):
        reopen(tmp_path)


async def test_a_group_that_began_two_shards_is_a_crash_and_three_shards_are_not(
    tmp_path: Path, image: MakeImage
) -> None:
    dataset, _ = await fill(tmp_path, image)
    directory = tmp_path / "datasets" / dataset
    committed = end_of(directory)
    write_behind(directory, committed, 2)
    with shard_path(directory, 0).open("ab") as file:
        file.write(END_OF_ARCHIVE)
    write_behind(directory, Position(1, 0), 2)
    write_behind(directory, Position(2, 0), 1)
    await reopen(tmp_path).close()
    assert shard_path(directory, 0).stat().st_size == committed.offset
    assert set_aside(tmp_path) == [f"datasets/{dataset}/shard-0000000{number}.tar" for number in (1, 2)]
    write_behind(directory, Position(3, 0), 1)
    with pytest.raises(StoreMismatched, match=r"shard-00000003\.tar"):
        reopen(tmp_path)


async def test_a_shard_of_no_images_is_moved_aside(
    tmp_path: Path, image: MakeImage, caplog: pytest.LogCaptureFixture
) -> None:
    dataset, _ = await fill(tmp_path, image)
    directory = tmp_path / "datasets" / dataset
    for shard in (1, 2, 99_999_999):
        shard_path(directory, shard).write_bytes(b"x" * 4096)
    await reopen(tmp_path).close()
    moved = set_aside(tmp_path)
    assert [name.rpartition("/")[2] for name in moved] == [shard_path(directory, n).name for n in (1, 2, 99_999_999)]
    assert caplog.text.count("is not known to the database, so it was moved to") == 3


async def test_a_directory_on_another_file_system_is_moved_aside_too(
    tmp_path: Path, image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, _ = await fill(tmp_path, image)
    stray = shard_path(tmp_path / "datasets" / dataset, 5)
    stray.write_bytes(b"x" * 4096)
    rename = Path.rename

    def across(self: Path, target: Path) -> Path:
        if "set-aside" in str(target):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", across)
    # `shutil.move` tries `os.rename` first, which works here.
    await reopen(tmp_path).close()
    assert not stray.exists()
    assert set_aside(tmp_path) == [f"datasets/{dataset}/{stray.name}"]


async def test_bytes_that_no_crash_leaves_are_kept_when_they_are_cut_off(tmp_path: Path, image: MakeImage) -> None:
    dataset, _ = await fill(tmp_path, image)
    path = shard_path(tmp_path / "datasets" / dataset, 0)
    committed = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"z" * (GROUP.tail_bytes + 1))
    await reopen(tmp_path).close()
    assert path.stat().st_size == committed
    assert set_aside(tmp_path) == [f"datasets/{dataset}/shard-00000000.tar.from-byte-{committed}"]


async def test_a_job_that_was_never_created_is_moved_aside_with_the_copy_that_it_was_to_begin_with(
    tmp_path: Path, image: MakeImage
) -> None:
    _, job = await fill(tmp_path, image)
    crashed = tmp_path / "jobs" / UNKNOWN / "checkpoints"
    crashed.mkdir(parents=True)
    source = tmp_path / "jobs" / job / "checkpoints" / checkpoints.name(2, 1)
    checkpoints.copy(source, crashed / checkpoints.name(2, 0))
    (crashed / ".tmp-000000002-0-1234abcd").mkdir()
    await reopen(tmp_path).close()
    assert not (tmp_path / "jobs" / UNKNOWN).exists()
    prefix = f"jobs/{UNKNOWN}/checkpoints/000000002-0"
    assert set_aside(tmp_path) == [f"{prefix}/{name}" for name in (checkpoints.MANIFEST, checkpoints.STATE_JSON)]
    assert (source / checkpoints.MANIFEST).exists()


async def test_a_job_that_was_never_created_and_has_no_file_is_removed(tmp_path: Path, image: MakeImage) -> None:
    await fill(tmp_path, image)
    (tmp_path / "jobs" / UNKNOWN / "checkpoints").mkdir(parents=True)
    await reopen(tmp_path).close()
    assert not (tmp_path / "jobs" / UNKNOWN).exists()
    assert set_aside(tmp_path) == []


async def test_a_data_set_that_was_never_created_stops_nobody(tmp_path: Path, image: MakeImage) -> None:
    await fill(tmp_path, image)
    (tmp_path / "datasets" / UNKNOWN).mkdir()
    await reopen(tmp_path).close()


async def test_files_with_names_that_the_server_does_not_give_are_left_alone(tmp_path: Path, image: MakeImage) -> None:
    dataset, job = await fill(tmp_path, image)
    for path in (
        *(f"jobs/my-backup/checkpoints/{checkpoints.name(3, 1)}/state.json", f"jobs/{job}/notes.txt", "jobs/README"),
        *(
            f"datasets/{dataset}/shard-copy.tar",
            f"datasets/{dataset}/shard-00000001.tar.bak",
            "datasets/old/shard-00000000.tar",
        ),
        *("embeddings/README", "embeddings/old/backbone-1/segment-00000000.tmp", f"embeddings/{UNKNOWN}/notes/a.tmp"),
        *("weights/mine.safetensors", "notes/README"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("precious")
    (tmp_path / "jobs" / UNKNOWN).symlink_to(tmp_path / "jobs" / "my-backup")
    before = {name: digest for name, digest in files(tmp_path).items() if name not in ("GENERATION", "LOCK")}
    await reopen(tmp_path).close()
    assert before.items() <= files(tmp_path).items()
    assert not (tmp_path / "set-aside").exists()


async def test_what_a_request_deleted_is_removed_and_no_reason_to_refuse(
    tmp_path: Path, image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server dies between the commit of a deletion and its sweep."""
    dataset, _ = await fill(tmp_path, image)
    store = reopen(tmp_path)

    async def dies() -> None:
        return None

    monkeypatch.setattr(store._deletions, "sweep", dies)
    await store.jobs.request("j", CANCEL)
    await store.datasets.delete("a")
    await store.jobs.delete("j")
    await store.close()
    assert (tmp_path / "datasets" / dataset).exists()
    await reopen(tmp_path).close()
    assert list((tmp_path / "datasets").iterdir()) == list((tmp_path / "jobs").iterdir()) == []
    assert not (tmp_path / "set-aside").exists()


async def test_two_starts_in_one_second_keep_apart_what_they_move(tmp_path: Path, image: MakeImage) -> None:
    dataset, _ = await fill(tmp_path, image)
    for text in ("first", "second"):
        shard_path(tmp_path / "datasets" / dataset, 5).write_text(text)
        await Store.open(tmp_path, reserve_bytes=0, limit=GROUP, clock=lambda: 1_795_900_000.0).close()
    moved = sorted((tmp_path / "set-aside").iterdir())
    assert [path.name for path in moved] == ["2026-11-28T21-06-40Z", "2026-11-28T21-06-40Z-2"]
    assert [next(path.rglob("*.tar")).read_text() for path in moved] == ["first", "second"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "set-aside").rglob("*") if path.is_dir())


async def test_a_refused_start_lets_the_lock_go(tmp_path: Path, image: MakeImage) -> None:
    await fill(tmp_path, image)
    shutil.move(tmp_path / DATABASE, tmp_path / "elsewhere")
    with pytest.raises(StoreMismatched):
        reopen(tmp_path)
    shutil.move(tmp_path / "elsewhere", tmp_path / DATABASE)
    assert len(os.listdir(tmp_path / "datasets")) == 1
    await reopen(tmp_path).close()
