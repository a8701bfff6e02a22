"""MetricsService: the event log of a job, live and as a table. A slow subscriber costs nothing: it is a cursor."""
# ruff: noqa: N802 (the contract names the methods)

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import grpc

from manyview.v1 import metrics_service_pb2 as pb
from manyview.v1 import metrics_service_pb2_grpc
from manyview_server.errors import NotFound, Unavailable
from manyview_server.front.convert import job_messages
from manyview_server.front.rpc import page_tokens
from manyview_server.front.rpc import resource_names as names
from manyview_server.front.rpc.draining import Draining
from manyview_server.front.rpc.pages import fitting
from manyview_server.store.event_payloads import StateChange
from manyview_server.store.job_states import TERMINAL_STATES
from manyview_server.store.records import Event
from manyview_server.store.store import Store

Context = grpc.aio.ServicerContext[Any, Any]

PAGE_EVENTS = 500
PAGE_BYTES = 1 << 20
"""The approximate size of a message. Long log lines are split over several messages."""
SPAN = re.compile(r"[0-9]{1,18},[0-9]{1,18}")
"""The form of a page token: the last row of the previous page, and the last row of all pages."""

KIND_NAMES = {kind: name.removeprefix("KIND_").lower() for name, kind in pb.MetricsEvent.Kind.items() if kind}


class MetricsService(metrics_service_pb2_grpc.MetricsServiceServicer):
    """The calls of MetricsService."""

    def __init__(self, store: Store, draining: Draining, heartbeat_s: float, page_bytes: int) -> None:
        self._store = store
        self._draining = draining
        self._heartbeat_s = heartbeat_s
        self._page_bytes = page_bytes

    async def SubscribeMetrics(
        self, request: pb.SubscribeMetricsRequest, context: Context
    ) -> AsyncIterator[pb.SubscribeMetricsResponse]:
        """Replay the events after a cursor, follow new ones, and send an explicit end."""
        job_id = names.train_job_id(request.train_job, "train_job")
        kinds = _kinds(request.kinds)
        if request.after_sequence < 0:
            raise names.invalid("after_sequence", f"{request.after_sequence} is less than 0")
        cursor = request.after_sequence
        job = await self._store.jobs.get(job_id)
        state, known = job.state, job.last_sequence
        try:
            while True:
                events = await self._store.events.read(job_id, cursor, PAGE_EVENTS)
                # The log contains later states, so hundreds of subscribers need not ask the database each time.
                changes = [e.payload for e in events if isinstance(e.payload, StateChange) and e.sequence > known]
                state = changes[-1].to_state if changes else state
                for message in pages(job_id, events, kinds):
                    cursor = message.cursor
                    yield message
                if events:
                    continue
                if state in TERMINAL_STATES:
                    yield _end(cursor, pb.EndOfStream.REASON_JOB_TERMINAL, state)
                    return
                if not request.follow:
                    yield _end(cursor, pb.EndOfStream.REASON_CAUGHT_UP, state)
                    return
                if not await self._draining.interrupting(self._store.events.wait(job_id, cursor, self._heartbeat_s)):
                    yield pb.SubscribeMetricsResponse(cursor=cursor)
        except NotFound:
            yield _end(cursor, pb.EndOfStream.REASON_DELETED, state)
        except Unavailable:
            yield _end(cursor, pb.EndOfStream.REASON_DRAINING, state)

    async def QueryMetrics(self, request: pb.QueryMetricsRequest, context: Context) -> pb.QueryMetricsResponse:
        """Return a page of the table of scalars."""
        job_id = names.train_job_id(request.train_job, "train_job")
        size = page_tokens.page_size(request.page_size, default=1000, most=10_000)
        if request.max_rows < 0 or request.max_rows == 1:
            raise names.invalid("max_rows", f"{request.max_rows} must be 0 or at least 2")
        metric_names = sorted(set(request.metric_names))
        scope = f"metrics/{job_id}/{metric_names}/{request.max_rows}"
        after, upto = _span(page_tokens.decode_page_token(scope, request.page_token, SPAN))
        events = self._store.events
        # All pages belong to the rows that existed at the first page, although the job logs more.
        upto = upto or await events.last_sequence(job_id)
        if request.max_rows:  # which rows remain depends on all rows
            every = await events.scalar_rows(job_id, metric_names)
            rest = await asyncio.to_thread(_thinned_page, every, after, upto, request.max_rows)
        else:
            rows = await events.scalar_rows(job_id, metric_names, after=after, limit=size + 1)
            rest = [row for row in rows if row.sequence <= upto]
        page = await asyncio.to_thread(fitting, rest[:size], job_messages.metrics_row, self._page_bytes)
        next_page_token = f"{page[-1].sequence},{upto}" if len(rest) > len(page) else ""
        return pb.QueryMetricsResponse(rows=page, next_page_token=page_tokens.encode_page_token(scope, next_page_token))


def pages(job_id: str, events: Sequence[Event], kinds: frozenset[str]) -> Iterator[pb.SubscribeMetricsResponse]:
    """Yield the events in messages of about `PAGE_BYTES`. Events of other kinds than `kinds` only move the cursor.

    Each message is made when it is sent. An empty `kinds` means all.
    """
    message, num_bytes = pb.SubscribeMetricsResponse(), 0
    for event in events:
        message.cursor = event.sequence
        if kinds and event.kind not in kinds:
            continue
        converted = job_messages.event(job_id, event)
        message.events.append(converted)
        num_bytes += converted.ByteSize()
        if num_bytes >= PAGE_BYTES:
            yield message
            message, num_bytes = pb.SubscribeMetricsResponse(), 0
    if message.cursor:
        yield message


def _thinned_page(rows: Sequence[Event], after: int, upto: int, max_rows: int) -> Sequence[Event]:
    """Thin out the rows up to `upto`, and return the remaining rows after `after`."""
    return [row for row in thinned([r for r in rows if r.sequence <= upto], max_rows) if row.sequence > after]


def thinned(rows: Sequence[Event], max_rows: int) -> Sequence[Event]:
    """Return at most `max_rows` rows (2 or more), evenly spaced over the steps, with the first and the last row.

    0 keeps all rows.

    For each of `max_rows` evenly spaced steps, it takes the first row at or after that step.
    """
    if max_rows == 0 or len(rows) <= max_rows:
        return rows
    first, last = rows[0].step, rows[-1].step
    chosen: list[Event] = []
    index = 0
    for i in range(max_rows - 1):
        wanted = first + (last - first) * i / (max_rows - 1)
        while rows[index].step < wanted:
            index += 1
        if not chosen or rows[index] is not chosen[-1]:
            chosen.append(rows[index])
    return chosen if chosen[-1] is rows[-1] else [*chosen, rows[-1]]


def _kinds(asked: Sequence[pb.MetricsEvent.Kind]) -> frozenset[str]:
    unknown = [kind for kind in asked if kind not in KIND_NAMES]
    if unknown:
        raise names.invalid("kinds", f"{unknown[0]} is not a kind of event")
    return frozenset(KIND_NAMES[kind] for kind in asked)


def _span(token: str) -> tuple[int, int]:
    after, _, upto = token.partition(",")
    return int(after or 0), int(upto or 0)


def _end(cursor: int, reason: pb.EndOfStream.Reason, state: str) -> pb.SubscribeMetricsResponse:
    end = pb.EndOfStream(reason=reason, state=job_messages.state(state))
    return pb.SubscribeMetricsResponse(cursor=cursor, end=end)
