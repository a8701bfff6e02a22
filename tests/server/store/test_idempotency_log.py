from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from manyview_server.errors import AlreadyExists, NotFound
from manyview_server.store import idempotency_log
from manyview_server.store.store import Store


class Work:
    """Counts how often it is done."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.times = 0
        self._delay_s = delay_s

    async def __call__(self) -> bytes:
        self.times += 1
        await asyncio.sleep(self._delay_s)
        return b"answer %d" % self.times


async def test_the_same_request_gets_the_same_answer_and_is_done_once(store: Store) -> None:
    work = Work()
    answers = [await store.idempotency_log.once("id", "Create", b"hash", work) for _ in range(3)]
    assert (answers, work.times) == ([b"answer 1"] * 3, 1)


async def test_requests_at_the_same_time_share_the_work(store: Store) -> None:
    work = Work(0.02)
    answers = await asyncio.gather(*(store.idempotency_log.once("id", "Create", b"hash", work) for _ in range(5)))
    assert (answers, work.times) == ([b"answer 1"] * 5, 1)


async def test_an_answer_outlives_the_server(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    await store.idempotency_log.once("id", "Create", b"hash", Work())
    await store.close()
    store, work = Store.open(tmp_path), Work()
    assert await store.idempotency_log.once("id", "Create", b"hash", work) == b"answer 1"
    assert work.times == 0
    await store.close()


@pytest.mark.parametrize(("method", "body"), [("Delete", b"hash"), ("Create", b"other")])
async def test_an_id_belongs_to_one_request(store: Store, method: str, body: bytes) -> None:
    await store.idempotency_log.once("id", "Create", b"hash", Work())
    with pytest.raises(AlreadyExists) as caught:
        await store.idempotency_log.once("id", method, body, Work())
    assert caught.value.reason == "REQUEST_ID_REUSED"
    slow = asyncio.create_task(store.idempotency_log.once("running", "Create", b"hash", Work(0.05)))
    await asyncio.sleep(0.01)
    with pytest.raises(AlreadyExists):
        await store.idempotency_log.once("running", method, body, Work())
    await slow


async def test_a_failure_is_not_kept(store: Store) -> None:
    async def fail() -> bytes:
        raise NotFound("DATASET_NOT_FOUND", "none")

    with pytest.raises(NotFound):
        await store.idempotency_log.once("id", "Create", b"hash", fail)
    assert await store.idempotency_log.once("id", "Create", b"hash", Work()) == b"answer 1"


async def test_without_an_id_the_work_is_done_each_time(store: Store) -> None:
    work = Work()
    assert [await store.idempotency_log.once("", "Create", b"hash", work) for _ in range(2)] == [
        b"answer 1",
        b"answer 2",
    ]


async def test_answers_are_forgotten_after_a_day_but_for_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency_log, "KEEP_NEWEST", 2)
    now = [1000.0]
    store, work = Store.open(tmp_path, clock=lambda: now[0]), Work()
    for name in ("first", "second"):
        await store.idempotency_log.once(name, "Create", b"hash", work)
        now[0] += 1
    now[0] += 24 * 3600
    assert await store.idempotency_log.once("first", "Create", b"hash", work) == b"answer 1", (
        "it is one of the newest two"
    )
    assert await store.idempotency_log.once("third", "Create", b"hash", work) == b"answer 3"
    assert await store.idempotency_log.once("second", "Create", b"hash", work) == b"answer 2"
    assert await store.idempotency_log.once("first", "Create", b"other", work) == b"answer 4", "it was forgotten"
    await store.close()


@pytest.mark.parametrize("jump_s", [10 * 365 * 86400.0, -10 * 365 * 86400.0])
async def test_a_clock_that_jumps_makes_no_server_do_a_request_twice(tmp_path: Path, jump_s: float) -> None:
    now = [1_800_000_000.0]
    store, work = Store.open(tmp_path, clock=lambda: now[0]), Work()
    assert await store.idempotency_log.once("before", "Create", b"hash", work) == b"answer 1"
    now[0] += jump_s
    assert await store.idempotency_log.once("after", "Create", b"hash", work) == b"answer 2"
    assert await store.idempotency_log.once("before", "Create", b"hash", work) == b"answer 1"
    now[0] -= jump_s
    assert await store.idempotency_log.once("back", "Create", b"hash", work) == b"answer 3"
    assert await store.idempotency_log.once("after", "Create", b"hash", work) == b"answer 2"
    assert await store.idempotency_log.once("before", "Create", b"hash", work) == b"answer 1"
    await store.close()


async def test_old_answers_go_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency_log, "MAX_REMOVED", 2)
    monkeypatch.setattr(idempotency_log, "KEEP_NEWEST", 1)
    now = [1000.0]
    store, work = Store.open(tmp_path, clock=lambda: now[0]), Work()
    for number in range(5):
        await store.idempotency_log.once(f"old {number}", "Create", b"hash", work)
    now[0] += 25 * 3600
    held = []
    for number in range(3):
        await store.idempotency_log.once(f"new {number}", "Create", b"hash", work)
        (count,) = await store._database.read(lambda c: c.execute("SELECT count(*) FROM request").fetchone())
        held.append(count)
    assert held == [4, 3, 3]
    await store.close()


async def test_a_caller_that_hangs_up_does_not_stop_the_work(store: Store) -> None:
    work = Work(0.02)
    calling = asyncio.create_task(store.idempotency_log.once("id", "Create", b"hash", work))
    await asyncio.sleep(0.01)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert await store.idempotency_log.once("id", "Create", b"hash", work) == b"answer 1"
