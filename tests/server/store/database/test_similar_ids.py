"""A name that does not exist is answered with the one that somebody meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manyview_server.errors import NotFound
from manyview_server.store.database.similar_ids import MAX_IDS
from manyview_server.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path)


async def test_data_sets_jobs_and_checkpoints_are_suggested(store: Store) -> None:
    await store.datasets.create("clothing")
    await store.jobs.create("first-try", "clothing", "moco", {}, "1")
    for step in (10, 20):
        fields: dict[str, Any] = {"epoch": 1, "attempt": 1, "directory": f"{step}", "num_bytes": 1, "model": {}}
        await store.checkpoints.add("first-try", step=step, **fields)
    with pytest.raises(NotFound, match=r"no data set 'clohting'; did you mean 'clothing'\?$"):
        await store.datasets.get("clohting")
    with pytest.raises(NotFound, match=r"no train job 'frst-try'; did you mean 'first-try'\?$"):
        await store.jobs.get("frst-try")
    with pytest.raises(NotFound, match=r"no data set 'zzz'$"):
        await store.datasets.get("zzz")
    with pytest.raises(NotFound, match=r"no checkpoint of step 15; there are those of 10, 20$"):
        await store.checkpoints.get("first-try", 15)
    await store.close()


async def test_only_the_newest_are_compared(store: Store) -> None:
    for number in range(MAX_IDS + 1):
        await store.datasets.create(f"set-{number:04}")
    with pytest.raises(NotFound, match="did you mean"):
        await store.datasets.get("set-0001x")
    statements: list[str] = []
    await store._database.read(lambda connection: connection.set_trace_callback(statements.append))
    with pytest.raises(NotFound):
        await store.datasets.get("set-none")
    assert any(f"LIMIT {MAX_IDS}" in statement for statement in statements)
    await store.close()
