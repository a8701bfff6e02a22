from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

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
