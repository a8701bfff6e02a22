"""Subscriptions as cursors over the real event log, and the table of scalars."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import grpc
import pytest

from manyview.v1 import metrics_service_pb2 as pb
from manyview.v1 import metrics_service_pb2_grpc, types_pb2
from manyview_server.errors import OutOfRange
from manyview_server.front.jobs.metrics import thinned
from manyview_server.front.jobs.subscriptions.event_pages import PAGE_EVENTS, EventPage, EventPages
from manyview_server.front.rpc import page_tokens
from manyview_server.store.event_payloads import Alert, CheckpointSaved, Log, Payload, Rollback, Scalars
from manyview_server.store.jobs.job_verbs import CANCEL
from manyview_server.store.records import Event, NewEvent

End = pb.EndOfStream
JOB = "trainJobs/j"


@pytest.fixture
async def job(front: Any) -> str:
    await front.store.datasets.create("shirts")
    await front.store.jobs.create("j", "shirts", "simclr", {}, "1")
    return JOB


async def log_scalars(front: Any, *steps: int) -> None:
    events = [NewEvent(payload=Scalars(values={"loss": float(s), "lr": 0.1}), step=s, attempt=1) for s in steps]
    await front.store.events.append("j", events)
    await front.store.events.flush("j")


async def log_line(front: Any, text: str) -> None:
    await front.store.events.append("j", [NewEvent(payload=Log(level="info", text=text))])


async def succeed(front: Any) -> None:
    await front.store.jobs.transition("j", {"QUEUED"}, "STARTING")
    await front.store.jobs.transition("j", {"STARTING"}, "RUNNING")
    await front.store.jobs.transition("j", {"RUNNING"}, "SUCCEEDED")


async def replayed(front: Any, **fields: Any) -> list[pb.SubscribeMetricsResponse]:
    call = front.metrics.SubscribeMetrics(pb.SubscribeMetricsRequest(train_job=JOB, **fields))
    async with asyncio.timeout(20):
        return [response async for response in call]


async def last_of(call: Any) -> pb.SubscribeMetricsResponse:
    """The end; the call has been read from with `read` before."""
    async with asyncio.timeout(10):
        while not (response := await call.read()).HasField("end"):
            pass
        assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined]
    return response


def events_of(responses: list[pb.SubscribeMetricsResponse]) -> list[pb.MetricsEvent]:
    return [event for response in responses for event in response.events]


async def test_replay_gives_every_event_once_and_says_that_it_caught_up(front: Any, job: str) -> None:
    await log_scalars(front, *range(1, 1501))
    responses = await replayed(front)
    newest = await front.store.events.last_sequence("j")
    assert [event.sequence for event in events_of(responses)] == list(range(1, newest + 1))
    assert len(responses) > 3
    assert responses[-1].end.reason == End.REASON_CAUGHT_UP
    assert responses[-1].end.state == types_pb2.TRAIN_JOB_STATE_QUEUED
    assert responses[-1].cursor == newest
    assert [e.sequence for e in events_of(await replayed(front, after_sequence=newest - 1))] == [newest]


async def test_every_kind_of_event_carries_its_payload(front: Any, job: str) -> None:
    payloads: list[Payload] = [
        Scalars(values={"loss": 1.5}),
        CheckpointSaved(step=7, directory="/secret/path", num_bytes=9),
        Alert(reason="RESUME_NOT_EXACT", message="m"),
        Log(level="warning", text="t"),
        Rollback(to_step=3, superseded_after_sequence=2),
    ]
    await front.store.events.append("j", [NewEvent(payload=payload, step=4) for payload in payloads])
    await front.store.events.flush("j")
    await front.store.jobs.transition("j", {"QUEUED"}, "STARTING")
    responses = await replayed(front)
    events = {event.WhichOneof("payload"): event for event in events_of(responses)}
    assert dict(events["scalars"].scalars.values) == {"loss": 1.5}
    assert events["scalars"].step == 4
    assert (events["checkpoint"].checkpoint.name, events["checkpoint"].checkpoint.num_bytes) == (
        "trainJobs/j/checkpoints/7",
        9,
    )
    assert events["alert"].alert.reason == "RESUME_NOT_EXACT"
    assert events["log"].log.level == types_pb2.Log.LEVEL_WARNING
    assert events["rollback"].rollback.superseded_after_sequence == 2
    change = events["state_change"].state_change
    assert (getattr(change, "from"), change.to) == (
        types_pb2.TRAIN_JOB_STATE_QUEUED,
        types_pb2.TRAIN_JOB_STATE_STARTING,
    )
    assert b"/secret" not in b"".join(response.SerializeToString() for response in responses)


async def test_following_is_live_and_ends_with_the_terminal_state(front: Any, job: str) -> None:
    call = front.metrics.SubscribeMetrics(pb.SubscribeMetricsRequest(train_job=JOB, follow=True))
    seen: list[int] = []

    async def read() -> pb.SubscribeMetricsResponse:
        async for response in call:
            seen.extend(event.sequence for event in response.events)
            if response.HasField("end"):
                last: pb.SubscribeMetricsResponse = response
        return last

    reading = asyncio.create_task(read())
    for step in range(1, 6):
        await log_scalars(front, step)
        await asyncio.sleep(0.02)
    await succeed(front)
    async with asyncio.timeout(10):
        last = await reading
    newest = await front.store.events.last_sequence("j")
    assert seen == list(range(1, newest + 1))
    assert (last.end.reason, last.end.state) == (End.REASON_JOB_TERMINAL, types_pb2.TRAIN_JOB_STATE_SUCCEEDED)
    assert last.cursor == newest


async def test_silence_is_filled_with_heartbeats_that_carry_the_cursor(front: Any, job: str) -> None:
    newest = await front.store.events.last_sequence("j")
    call = front.metrics.SubscribeMetrics(pb.SubscribeMetricsRequest(train_job=JOB, follow=True, after_sequence=newest))
    async with asyncio.timeout(5):
        beats = [await call.read(), await call.read()]
    assert beats == [pb.SubscribeMetricsResponse(cursor=newest)] * 2
    call.cancel()


async def test_a_filter_moves_the_cursor_over_what_was_not_asked_for(front: Any, job: str) -> None:
    await log_line(front, "one")
    await log_scalars(front, *range(1, 700))
    responses = await replayed(front, kinds=[pb.MetricsEvent.KIND_LOG])
    assert [event.log.text for event in events_of(responses)] == ["one"]
    cursors = [response.cursor for response in responses]
    assert cursors == sorted(cursors)
    assert cursors[-1] == await front.store.events.last_sequence("j")


@pytest.mark.parametrize("follow", [False, True])
async def test_a_cursor_outside_of_what_is_held_is_out_of_range_and_the_error_has_both_ends(
    front: Any, job: str, refused: Any, monkeypatch: pytest.MonkeyPatch, follow: bool
) -> None:
    monkeypatch.setattr(front.store.events, "_max_events", 8)
    for number in range(20):
        await log_line(front, f"line {number}")
    with pytest.raises(OutOfRange) as expired:
        await front.store.events.read("j", 0, 10)
    oldest, newest = int(expired.value.metadata["oldest"]), await front.store.events.last_sequence("j")
    assert 1 < oldest < newest
    held = {"oldest": str(oldest), "newest": str(newest)}
    for cursor, reason in (
        (newest + 1, "SEQUENCE_AHEAD"),
        (newest + 10, "SEQUENCE_AHEAD"),
        (2**62, "SEQUENCE_AHEAD"),
        (oldest - 2, "SEQUENCE_EXPIRED"),
        (0, "SEQUENCE_EXPIRED"),
    ):
        error = await refused(replayed(front, after_sequence=cursor, follow=follow))
        assert (error.code, error.reason) == (grpc.StatusCode.OUT_OF_RANGE, reason), cursor
        assert error.metadata == held, cursor
    for cursor in (oldest - 1, newest):
        responses = await replayed(front, after_sequence=cursor)
        assert [event.sequence for event in events_of(responses)] == list(range(cursor + 1, newest + 1))


async def test_a_cursor_that_is_none_is_refused(front: Any, job: str, refused: Any) -> None:
    assert (await refused(replayed(front, after_sequence=-1))).fields == ("after_sequence",)
    assert (await refused(replayed(front, kinds=[0]))).fields == ("kinds",)
    unknown = front.metrics.SubscribeMetrics(pb.SubscribeMetricsRequest(train_job="trainJobs/none"))
    assert (await refused(unknown.read())).reason == "TRAIN_JOB_NOT_FOUND"


async def test_a_drain_ends_a_subscription_with_its_cursor(front: Any, job: str) -> None:
    call = front.metrics.SubscribeMetrics(pb.SubscribeMetricsRequest(train_job=JOB, follow=True))
    cursor = (await call.read()).cursor
    await front.server.begin_drain()
    last = await last_of(call)
    assert last.end.reason == End.REASON_DRAINING
    assert last.cursor == cursor


async def test_deleting_the_job_ends_a_subscription(front: Any, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is deleted between its terminal state and the next read of this subscriber."""
    call = front.metrics.SubscribeMetrics(pb.SubscribeMetricsRequest(train_job=JOB, follow=True))
    await call.read()
    read = front.store.events.read

    async def read_later(*where: Any) -> Any:
        while not gone:
            await asyncio.sleep(0.01)
        return await read(*where)

    gone: list[bool] = []
    monkeypatch.setattr(front.store.events, "read", read_later)
    await front.store.jobs.request("j", CANCEL)
    await asyncio.sleep(0.1)
    await front.store.jobs.delete("j")
    gone.append(True)
    assert (await last_of(call)).end.reason == End.REASON_DELETED


async def test_a_subscriber_that_does_not_read_holds_nobody_up(front: Any, job: str) -> None:
    slow = front.metrics.SubscribeMetrics(pb.SubscribeMetricsRequest(train_job=JOB, follow=True))
    await slow.read()
    for begin in range(0, 5000, 1000):
        await log_scalars(front, *range(begin, begin + 1000))
    async with asyncio.timeout(20):
        responses = await replayed(front)
    newest = await front.store.events.last_sequence("j")
    assert len(events_of(responses)) == newest
    slow.cancel()


async def test_the_table_has_pages_and_only_the_columns_asked_for(front: Any, job: str, refused: Any) -> None:
    await log_scalars(front, *range(1, 26))
    seen: list[int] = []
    token = ""
    while True:
        request = pb.QueryMetricsRequest(train_job=JOB, metric_names=["loss"], page_size=10, page_token=token)
        page = await front.metrics.QueryMetrics(request)
        seen += [row.step for row in page.rows]
        assert all(dict(row.values) == {"loss": row.step} for row in page.rows)
        token = page.next_page_token
        if not token:
            break
        await log_scalars(front, 100 + len(seen))
    assert seen == list(range(1, 26))
    for forged in ("abc", "1", "-1,5", "1," + "9" * 5000, f"1,{2**63}"):
        token = page_tokens.encode_page_token("metrics/j/[]/0", forged)
        request = pb.QueryMetricsRequest(train_job=JOB, page_token=token)
        assert (await refused(front.metrics.QueryMetrics(request))).fields == ("page_token",)
    other = pb.QueryMetricsRequest(train_job=JOB, page_token="AAAA")
    assert (await refused(front.metrics.QueryMetrics(other))).fields == ("page_token",)
    one = pb.QueryMetricsRequest(train_job=JOB, max_rows=1)
    assert (await refused(front.metrics.QueryMetrics(one))).fields == ("max_rows",)


async def test_a_thinned_table_keeps_its_ends(front: Any, job: str) -> None:
    await log_scalars(front, *range(1, 1001))
    rows = (await front.metrics.QueryMetrics(pb.QueryMetricsRequest(train_job=JOB, max_rows=5))).rows
    assert [row.step for row in rows] == [1, 251, 501, 751, 1000]


def event(step: int) -> Event:
    return Event(sequence=step, time=1.0, attempt=1, step=step, epoch=0, payload=Scalars(values={"loss": 1.0}))


def test_thinning_is_even_over_steps_not_over_rows() -> None:
    dense = [event(step) for step in [*range(100), 1000, 2000]]
    assert [row.step for row in thinned(dense, 3)] == [0, 1000, 2000]
    assert thinned(dense, 0) is dense
    assert len(thinned(dense, 10)) <= 10


async def test_subscribers_read_each_event_of_the_log_once_for_all_of_them(
    front: Any, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most of them replay, and then all of them are live."""
    await log_scalars(front, *range(1, 2000))
    newest = await front.store.events.last_sequence("j")
    reads, read = [], front.store.events.read

    async def counted(job_id: str, after: int, limit: int) -> Any:
        reads.append(after)
        return await read(job_id, after, limit)

    monkeypatch.setattr(front.store.events, "read", counted)
    seen: dict[int, list[bytes]] = {number: [] for number in range(60)}

    async def subscribe(number: int) -> None:
        request = pb.SubscribeMetricsRequest(
            train_job=JOB, follow=True, after_sequence=newest if number % 3 == 0 else 0
        )
        async for response in front.metrics.SubscribeMetrics(request):
            seen[number] += [event.SerializeToString() for event in response.events]

    tasks = [asyncio.create_task(subscribe(number)) for number in seen]
    async with asyncio.timeout(30):
        while any(len(seen[number]) < newest for number in seen if number % 3):
            await asyncio.sleep(0.05)
        for step in range(3000, 3020):
            await log_scalars(front, step)
        await succeed(front)
        await asyncio.gather(*tasks)
    whole = seen[1]
    sequences = [pb.MetricsEvent.FromString(event).sequence for event in whole]
    assert sequences == list(range(1, await front.store.events.last_sequence("j") + 1))
    assert all(events == (whole if number % 3 else whole[newest:]) for number, events in seen.items())
    assert len(reads) == len(set(reads))


async def test_events_that_nobody_asked_for_are_not_told_before_the_heartbeat(front: Any, job: str) -> None:
    newest = await front.store.events.last_sequence("j")
    request = pb.SubscribeMetricsRequest(
        train_job=JOB, follow=True, after_sequence=newest, kinds=[pb.MetricsEvent.KIND_LOG]
    )
    call = front.metrics.SubscribeMetrics(request)
    reading = asyncio.create_task(call.read())
    async with asyncio.timeout(5):
        while not reading.done():
            await log_scalars(front, 1)
        beat = await reading
    assert not beat.events
    assert newest < beat.cursor <= await front.store.events.last_sequence("j")
    await log_line(front, "asked for")
    async with asyncio.timeout(5):
        while not (response := await call.read()).events:
            pass
    assert [event.log.text for event in response.events] == ["asked for"]
    call.cancel()


@pytest.fixture
def small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for a page or two. Requested before `front`."""
    defaults = EventPages.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "max_bytes", 40_000)


async def test_subscribers_that_do_not_read_hold_a_page_each_at_most(small_cache: None, front: Any, job: str) -> None:
    for _ in range(10):
        await log_scalars(front, *range(3000))
    newest = await front.store.events.last_sequence("j")
    options = [("grpc.http2.lookahead_bytes", 65_536), ("grpc.http2.bdp_probe", 0)]
    async with grpc.aio.insecure_channel(front.server.address, options) as channel:
        stub = metrics_service_pb2_grpc.MetricsServiceStub(channel)
        stuck = [stub.SubscribeMetrics(pb.SubscribeMetricsRequest(train_job=JOB)) for _ in range(20)]
        for call in stuck:
            await call.read()
        async with asyncio.timeout(20):
            assert len(events_of(await replayed(front))) == newest
        gc.collect()
        pages = sum(type(found) is EventPage for found in gc.get_objects())
        assert 0 < pages < 20 + 6 < newest / PAGE_EVENTS
        for call in stuck:  # at last they read on
            responses = []
            async with asyncio.timeout(20):
                while (response := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
                    responses.append(response)
            rest = [event.sequence for event in events_of(responses)]
            assert rest == list(range(rest[0], newest + 1))
