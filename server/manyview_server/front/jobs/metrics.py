"""MetricsService: the event log of a job, live and as a table."""
# ruff: noqa: N802 (the contract names the methods)

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import grpc

from manyview.v1 import metrics_service_pb2 as pb
from manyview.v1 import metrics_service_pb2_grpc
from manyview_server.front.convert import job_messages
from manyview_server.front.jobs.subscriptions.event_feed import EventFeeds
from manyview_server.front.jobs.subscriptions.replay_pace import ReplayPace
from manyview_server.front.jobs.subscriptions.subscription import Encoded, Subscription
from manyview_server.front.rpc import page_tokens
from manyview_server.front.rpc import resource_names as names
from manyview_server.front.rpc.draining import Draining
from manyview_server.front.rpc.pages import fitting
from manyview_server.store.records import Event
from manyview_server.store.store import Store

Context = grpc.aio.ServicerContext[Any, Any]

SPAN = re.compile(r"[0-9]{1,18},[0-9]{1,18}")
"""The form of a page token: the last row of the previous page, and the last row of all pages."""

KIND_NAMES = {kind: name.removeprefix("KIND_").lower() for name, kind in pb.MetricsEvent.Kind.items() if kind}


class MetricsService(metrics_service_pb2_grpc.MetricsServiceServicer):
    """The calls of MetricsService."""

    def __init__(
        self, store: Store, draining: Draining, heartbeat_s: float, page_bytes: int, replay_pace: ReplayPace
    ) -> None:
        self._store = store
        self._feeds = EventFeeds(store.events, draining)
        self._pace = replay_pace
        self._heartbeat_s = heartbeat_s
        self._page_bytes = page_bytes

    async def SubscribeMetrics(
        self, request: pb.SubscribeMetricsRequest, context: Context
    ) -> AsyncGenerator[Encoded, None]:
        """Replay the events after a cursor, follow new ones, and send an explicit end."""
        job_id = names.train_job_id(request.train_job, "train_job")
        kinds = _kinds(request.kinds)
        if request.after_sequence < 0:
            raise names.invalid("after_sequence", f"{request.after_sequence} is less than 0")
        job = await self._store.jobs.get(job_id)
        async with self._feeds.subscribed(job_id) as feed:
            subscription = Subscription(feed, self._pace, job, kinds, self._heartbeat_s)
            async with aclosing(subscription.messages(request.after_sequence, follow=request.follow)) as messages:
                async for message in messages:
                    yield message

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
