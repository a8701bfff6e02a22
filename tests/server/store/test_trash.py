from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from manyview_server.store.job_verbs import CANCEL
from manyview_server.store.records import CheckedImage
from manyview_server.store.store import Store
from manyview_server.store.trash import Trash


async def test_a_deletion_that_a_crash_interrupted_is_finished_at_the_next_start(
    tmp_path: Path, image: Callable[[int], CheckedImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path, reserve_bytes=0)
    gone, kept = await store.datasets.create("gone"), await store.datasets.create("kept")
    for name in ("gone", "kept"):
        await (await store.uploads.open(name, "u")).append(1, [image(1)])

    async def crash(self: Trash) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trash, "sweep", crash)
        with pytest.raises(KeyboardInterrupt):
            await store.datasets.delete("gone")
    assert store.datasets.directory(gone.uid).exists()
    await store.close()

    store = Store.open(tmp_path, reserve_bytes=0)
    assert not store.datasets.directory(gone.uid).exists()
    assert store.datasets.directory(kept.uid).exists()
    rows = await store.datasets._database.read(lambda c: c.execute("SELECT count(*) FROM image").fetchone())
    assert rows == (1,)
    await store.close()


def make_table(store: Store, dataset: str, name: str) -> Path:
    """A table of embeddings with a segment, and one whose writing was cut off."""
    table = store.embeddings_dir / dataset / name
    table.mkdir(parents=True)
    (table / "segment-00000000").write_bytes(b"rows")
    (table / "segment-00000001-ab.tmp").write_bytes(b"ro")
    return table


async def test_embeddings_go_with_their_data_set_and_with_their_job(store: Store) -> None:
    gone, kept = await store.datasets.create("gone"), await store.datasets.create("kept")
    job = await store.jobs.create("j", "kept", "moco", {}, "1")
    other = await store.jobs.create("k", "kept", "moco", {}, "1")
    of_gone = make_table(store, gone.uid, "backbone-1")
    of_job, of_other = (make_table(store, kept.uid, f"{uid}-1") for uid in (job.uid, other.uid))
    await store.datasets.delete("gone")
    assert not of_gone.parent.exists()
    await store.jobs.request("j", CANCEL)
    await store.jobs.delete("j")
    assert (of_job.exists(), of_other.exists()) == (False, True)


async def test_a_start_removes_embeddings_of_nobody_and_unfinished_ones(tmp_path: Path) -> None:
    store = Store.open(tmp_path, reserve_bytes=0)
    dataset = await store.datasets.create("a")
    job = await store.jobs.create("j", "a", "moco", {}, "1")
    kept = [make_table(store, dataset.uid, name) for name in ("backbone-1", f"{job.uid}-2")]
    left = [make_table(store, uid, name) for uid, name in (("d" * 32, "backbone-1"), (dataset.uid, f"{'d' * 32}-1"))]
    await store.close()
    store = Store.open(tmp_path, reserve_bytes=0)
    assert [table.exists() for table in (*kept, *left)] == [True, True, False, False]
    assert [path.name for path in kept[0].iterdir()] == ["segment-00000000"]
    await store.close()
