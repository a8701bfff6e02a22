from __future__ import annotations

import asyncio
import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from manyview_server.errors import NotFound, OutOfRange, ResourceExhausted
from manyview_server.store.event_payloads import Alert, Log, Rollback, Scalars
from manyview_server.store.jobs import event_rows
from manyview_server.store.jobs import events as events_module
from manyview_server.store.jobs.events import EventLog
from manyview_server.store.jobs.job_verbs import CANCEL
from manyview_server.store.records import Event, NewEvent
from manyview_server.store.store import Store


def scalars(step: int, attempt: int = 1, **values: float) -> NewEvent:
    return NewEvent(payload=Scalars(values=values or {"loss": float(step)}), step=step, attempt=attempt)


def line(text: str) -> NewEvent:
    return NewEvent(payload=Log(level="info", text=text))


@pytest.fixture
async def log(store: Store) -> EventLog:
    """The event log of a store with one job, "j"; its first event is that it was queued."""
    await store.datasets.create("a")
    await store.jobs.create("j", "a", "simclr", {}, "0")
    return store.events


async def read_all(log: EventLog, job: str = "j") -> list[Event]:
    """Read all events as a subscriber does, page by page after a cursor."""
    found: list[Event] = []
    while page := await log.read(job, found[-1].sequence if found else 0, 7):
        found += page
    return found


async def test_sequences_are_contiguous_from_one_whoever_writes(log: EventLog, store: Store) -> None:
    async def trainer() -> None:
        for step in range(40):
            await log.append("j", [scalars(step)])
            if step % 10 == 0:
                await asyncio.sleep(0.03)

    async def chatter() -> None:
        for n in range(10):
            await log.append("j", [line(f"{n}")])

    await asyncio.gather(trainer(), chatter(), store.jobs.transition("j", {"QUEUED"}, "STARTING", attempt=1))
    await log.flush("j")
    found = await read_all(log)
    assert [e.sequence for e in found] == list(range(1, 53))
    assert [e.payload.values["loss"] for e in found if isinstance(e.payload, Scalars)] == list(range(40))
    assert await log.last_sequence("j") == 52


async def test_scalars_come_before_the_events_that_follow_them(log: EventLog, store: Store) -> None:
    await log.append("j", [scalars(1)])
    await store.jobs.transition("j", {"QUEUED"}, "STARTING")
    await log.append("j", [scalars(2)])
    await log.append("j", [line("done")])
    assert [e.kind for e in await read_all(log)] == ["state", "scalars", "state", "scalars", "log"]


async def test_scalars_alone_appear_within_their_time(log: EventLog) -> None:
    await log.append("j", [scalars(1), scalars(2)])
    assert await log.last_sequence("j") == 1
    assert await log.wait("j", 1, timeout_s=5.0)
    assert [e.step for e in await log.read("j", 1, 10)] == [1, 2]


async def test_nothing_is_seen_before_it_is_committed(log: EventLog, store: Store, monkeypatch: Any) -> None:
    def full(connection: sqlite3.Connection, pk: int, max_events: int) -> int:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    await log.append("j", [scalars(1)])
    with monkeypatch.context() as patch:
        patch.setattr(events_module, "trim", full)
        with pytest.raises(ResourceExhausted, match="full"):
            await log.append("j", [line("lost")])
        assert await log.last_sequence("j") == 1
        assert not await log.wait("j", 1, timeout_s=0.05)
    # There is room again. The scalars were kept, and the writer of the line got the error.
    assert await log.wait("j", 1, timeout_s=5.0)
    assert [(e.sequence, e.kind) for e in await read_all(log)] == [(1, "state"), (2, "scalars")]


async def test_a_waiter_wakes_at_the_next_event_and_not_before(log: EventLog) -> None:
    assert not await log.wait("j", 1, timeout_s=0.02)
    waiting = asyncio.create_task(log.wait("j", 1, timeout_s=5.0))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await log.append("j", [line("news")])
    assert await waiting
    assert await log.wait("j", 0, timeout_s=0.0)


async def test_following_readers_see_each_event_once_while_it_is_written(log: EventLog) -> None:
    async def follow() -> list[int]:
        seen: list[int] = []
        while not seen or seen[-1] < 401:
            await log.wait("j", seen[-1] if seen else 0, timeout_s=5.0)
            seen += [e.sequence for e in await log.read("j", seen[-1] if seen else 0, 9)]
        return seen

    readers = [asyncio.create_task(follow()) for _ in range(3)]
    for n in range(100):
        await log.append("j", [line(f"{n} {i}") for i in range(4)])
    assert [await reader for reader in readers] == [list(range(1, 402))] * 3


async def test_the_log_is_the_same_after_a_restart_and_goes_on(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    await store.datasets.create("a")
    await store.jobs.create("j", "a", "simclr", {}, "0")
    await store.events.append("j", [line(str(n)) for n in range(20)])
    await store.events.append("j", [scalars(1)])
    live = await store.events.read("j", 0, 15) + await store.events.read("j", 15, 100)
    await store.close()
    store = Store.open(tmp_path)
    replayed = await read_all(store.events)
    assert replayed[:-1] == live
    assert replayed[-1].kind == "scalars"
    await store.events.append("j", [line("more")])
    assert (await store.events.read("j", 22, 10))[0].sequence == 23
    await store.close()


async def test_old_events_are_read_from_the_database_and_new_ones_from_memory(log: EventLog) -> None:
    # More than the tail in memory holds.
    for n in range(12):
        await log.append("j", [line(f"{n} {i}") for i in range(100)])
    assert [e.sequence for e in await read_all(log)] == list(range(1, 1202))


async def test_a_cursor_beyond_the_newest_event_is_refused(log: EventLog) -> None:
    with pytest.raises(OutOfRange) as caught:
        await log.read("j", 2, 10)
    assert (caught.value.reason, caught.value.metadata) == ("SEQUENCE_AHEAD", {"oldest": "1", "newest": "1"})


async def test_a_log_over_its_bound_drops_its_oldest_and_says_so(store: Store) -> None:
    store.events._max_events = 80
    await store.datasets.create("a")
    await store.jobs.create("j", "a", "simclr", {}, "0")
    for n in range(100):
        await store.events.append("j", [line(str(n))])
    with pytest.raises(OutOfRange) as caught:
        await store.events.read("j", 0, 10)
    oldest = int(caught.value.metadata["oldest"])
    assert 1 < oldest <= 32
    with pytest.raises(OutOfRange) as caught:
        await store.events.read("j", oldest - 2, 10)
    assert caught.value.reason == "SEQUENCE_EXPIRED"
    assert caught.value.metadata == {"oldest": str(oldest), "newest": "101"}
    held = await store.events.read("j", oldest - 1, 1000)
    assert [e.sequence for e in held] == list(range(oldest, 102))


async def test_a_rollback_hides_the_steps_that_are_done_again(log: EventLog, store: Store) -> None:
    async def run(steps: range, attempt: int) -> None:
        for step in steps:
            await log.append("j", [scalars(step, attempt, loss=step + attempt / 10, rate=0.5)])
            if step % 4 == 1 and step > 1:
                # The checkpoint of the step before: scalars are read one step late.
                await store.checkpoints.add(
                    "j", step=step - 1, epoch=0, attempt=attempt, directory="d", num_bytes=1, model={}
                )

    await run(range(1, 7), 1)
    event = await log.rollback("j", 4, 2)
    assert event.payload == Rollback(to_step=4, superseded_after_sequence=5)
    await run(range(5, 8), 2)
    await log.rollback("j", 4, 3)
    await run(range(5, 10), 3)
    rows = await log.scalar_rows("j")
    assert [(e.step, e.attempt) for e in rows] == [(s, 1) for s in range(1, 5)] + [(s, 3) for s in range(5, 10)]
    assert [e.payload for e in await log.scalar_rows("j", ["loss"], limit=1)] == [Scalars(values={"loss": 1.1})]
    assert await log.scalar_rows("j", ["unknown"]) == []
    assert [e.step for e in await log.scalar_rows("j", after=rows[5].sequence)] == [7, 8, 9]


async def test_a_rollback_further_on_keeps_what_the_attempt_before_did(log: EventLog) -> None:
    await log.append("j", [scalars(step) for step in range(1, 16)])
    await log.rollback("j", 10, 2)
    await log.append("j", [scalars(step, 2) for step in range(11, 15)])
    await log.rollback("j", 12, 3)
    await log.append("j", [scalars(step, 3) for step in range(13, 15)])
    await log.flush("j")
    expected = [(s, 1) for s in range(1, 11)] + [(11, 2), (12, 2), (13, 3), (14, 3)]
    assert [(e.step, e.attempt) for e in await log.scalar_rows("j")] == expected


async def test_a_rollback_to_the_beginning_hides_everything_before(log: EventLog) -> None:
    await log.append("j", [scalars(0), scalars(1)])
    await log.rollback("j", 0, 2)
    await log.append("j", [scalars(0, 2), line("x")])
    assert [(e.step, e.attempt) for e in await log.scalar_rows("j")] == [(0, 2)]


async def test_scalars_of_many_pages_all_arrive(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "CHUNK_EVENTS", 10)
    await log.append("j", [scalars(step) for step in range(35)])
    await log.flush("j")
    assert [e.step for e in await log.scalar_rows("j")] == list(range(35))
    assert [e.step for e in await log.scalar_rows("j", limit=12)] == list(range(12))


async def test_the_newest_log_lines_and_alerts_come_oldest_first(log: EventLog) -> None:
    alert = NewEvent(payload=Alert(reason="COLLAPSE", message="m"))
    await log.append("j", [line("a"), scalars(1), line("b"), alert, line("c")])
    newest = [event.payload for event in await log.tail_logs("j", 3)]
    assert newest == [line("b").payload, alert.payload, line("c").payload]


async def test_a_deleted_jobs_readers_wake_and_find_nothing(log: EventLog, store: Store) -> None:
    await store.jobs.request("j", CANCEL)
    waiting = asyncio.create_task(log.wait("j", 2, timeout_s=5.0))
    await asyncio.sleep(0.02)
    await store.jobs.delete("j")
    assert await waiting
    with pytest.raises(NotFound, match="no train job"):
        await log.read("j", 2, 10)
    with pytest.raises(NotFound, match="no train job"):
        await log.append("j", [line("late")])
    await store.jobs.create("j", "a", "simclr", {}, "0")
    assert [e.sequence for e in await read_all(log)] == [1]


async def test_scalars_that_cannot_be_written_are_bounded(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "MAX_PENDING", 10)
    await log.append("j", [scalars(step) for step in range(8)])
    with pytest.raises(ResourceExhausted):
        await log.append("j", [scalars(step) for step in range(8)])


async def test_scalars_of_a_failed_commit_keep_their_place_before_those_that_were_queued_behind_it(
    log: EventLog, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three commits wait for the database thread, and the first one fails."""
    real, failing = event_rows.insert, [True]

    def insert(connection: sqlite3.Connection, pk: int, pending: Any) -> list[Event]:
        if pending and failing:
            failing.pop()
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return real(connection, pk, pending)

    monkeypatch.setattr(events_module, "insert", insert)
    flushes = []
    for step in (1, 2, 3):
        await log.append("j", [scalars(step)])
        flushes.append(asyncio.create_task(log.flush("j", vital=False)))
        await asyncio.sleep(0)
    results = await asyncio.gather(*flushes, return_exceptions=True)
    assert [type(result) for result in results] == [ResourceExhausted, type(None), type(None)]
    assert [event.step for event in await log.scalar_rows("j")] == [1, 2, 3]


async def test_scalars_of_failed_commits_count_for_the_bound_and_come_when_there_is_room(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(events_module, "MAX_PENDING", 10)
    with monkeypatch.context() as patch:
        patch.setattr(events_module, "trim", full)
        await log.append("j", [scalars(step) for step in range(6)])
        with pytest.raises(ResourceExhausted):
            await log.flush("j", vital=False)
        with pytest.raises(ResourceExhausted, match="cannot be written"):
            await log.append("j", [scalars(step) for step in range(6, 12)])
    await log.append("j", [scalars(6)])
    await log.flush("j")
    assert [event.step for event in await log.scalar_rows("j")] == list(range(7))


async def test_a_page_whose_events_are_dropped_while_it_is_read_is_refused_and_not_cut_short(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cursor is held when the read begins, and the commit that drops it comes before the read's turn."""
    monkeypatch.setattr(log, "_max_events", 8)
    for number in range(20):
        await log.append("j", [line(str(number))])
    with pytest.raises(OutOfRange) as expired:
        await log.read("j", 0, 10)
    cursor = int(expired.value.metadata["oldest"]) - 1
    log._tails._tails["j"].events.clear()
    dropping = asyncio.gather(*(log.append("j", [line("more")]) for _ in range(8)))
    await asyncio.sleep(0)
    with pytest.raises(OutOfRange) as expired:
        await log.read("j", cursor, 10)
    assert int(expired.value.metadata["oldest"]) > cursor + 1
    await dropping


async def test_a_payload_that_is_not_a_number_survives(log: EventLog) -> None:
    await log.append("j", [scalars(1, loss=float("nan")), line("x")])
    (event,) = await log.read_scalars("j", 0)
    assert isinstance(event.payload, Scalars)
    assert math.isnan(event.payload.values["loss"])


async def test_times_of_a_log_never_decrease_however_the_clock_jumps(tmp_path: Path) -> None:
    now = [1_800_000_000.0]
    store = Store.open(tmp_path, clock=lambda: now[0])
    await store.datasets.create("shirts")
    await store.jobs.create("j", "shirts", "moco", {}, "1")
    for jump_s in (0.0, -86400.0, 5.0, 2 * 86400.0, -10.0):
        now[0] += jump_s
        await store.events.append("j", [scalars(step=1)])
        await store.events.append("j", [line("x")])
    await store.close()
    store = Store.open(tmp_path, clock=lambda: 0.0)
    await store.jobs.transition("j", {"QUEUED"}, "STARTING", attempt=1)
    await store.jobs.request("j", CANCEL)
    job = await store.jobs.transition("j", {"CANCELLING"}, "CANCELLED")
    events = await store.events.read("j", 0, 100)
    times = [event.time - 1_800_000_000.0 for event in events]
    assert times == [0.0] * 7 + [86405.0] * 7
    assert job.create_time <= job.start_time <= job.end_time
    await store.close()
