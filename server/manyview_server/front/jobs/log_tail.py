"""TailLogs: the newest log lines and alerts of a job, then new ones as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing

from manyview.v1 import train_job_service_pb2 as pb
from manyview_server.front.convert import dataset_messages, job_messages
from manyview_server.front.rpc import pages
from manyview_server.front.rpc import resource_names as names
from manyview_server.front.rpc.draining import Draining
from manyview_server.store.event_payloads import StateChange
from manyview_server.store.job_states import TERMINAL_STATES
from manyview_server.store.records import Event, Job
from manyview_server.store.store import Store

PAGE_EVENTS = 1000
MAX_LINES = 10_000
LINES_PER_MESSAGE = 200
DEFAULT_LINES = 100
LOGGED = {"log", "alert"}


class LogTail:
    """Answers TailLogs."""

    def __init__(self, store: Store, draining: Draining, heartbeat_s: float, page_bytes: int) -> None:
        self._store = store
        self._draining = draining
        self._heartbeat_s = heartbeat_s
        self._page_bytes = page_bytes

    async def messages(self, request: pb.TailLogsRequest) -> AsyncGenerator[pb.TailLogsResponse, None]:
        """Yield the newest lines, with `follow` also new lines until the job is terminal, and the end."""
        job_id = names.train_job_id(request.train_job, "train_job")
        if not 0 <= request.num_lines <= MAX_LINES:
            raise names.invalid("num_lines", f"{request.num_lines} is outside of 0 to {MAX_LINES:,}")
        job = await self._store.jobs.get(job_id)
        newest = await self._store.events.tail_logs(job_id, request.num_lines or DEFAULT_LINES)
        # Lines that were added after the job was read are left out here: following starts with them.
        for message in self._in_messages([event for event in newest if event.sequence <= job.last_sequence]):
            yield message
        if request.follow:
            async with aclosing(self._follow(job_id, job)) as messages:
                async for message in messages:
                    yield message
        yield pb.TailLogsResponse(end=True)

    async def _follow(self, job_id: str, job: Job) -> AsyncGenerator[pb.TailLogsResponse, None]:
        """Yield lines as they come, and heartbeats in between, until the job is terminal."""
        cursor, state = job.last_sequence, job.state
        clock = asyncio.get_running_loop().time
        last_message_s = clock()
        while True:
            events = await self._store.events.read(job_id, cursor, PAGE_EVENTS)
            changes = [event.payload for event in events if isinstance(event.payload, StateChange)]
            state = changes[-1].to_state if changes else state
            for message in self._in_messages([event for event in events if event.kind in LOGGED]):
                yield message
                last_message_s = clock()
            if events:
                cursor = events[-1].sequence
            elif state in TERMINAL_STATES:
                return
            else:
                quiet_s = max(0.0, self._heartbeat_s - (clock() - last_message_s))
                await self._draining.interrupting(self._store.events.wait(job_id, cursor, quiet_s))
            # Scalars end the wait without a line to send, so only the time since the last message counts.
            if clock() - last_message_s >= self._heartbeat_s:
                yield pb.TailLogsResponse()
                last_message_s = clock()

    def _in_messages(self, events: Sequence[Event]) -> Iterator[pb.TailLogsResponse]:
        """Yield messages of a few hundred lines each, or fewer if the lines are long. Each is made when it is sent."""
        start = 0
        while start < len(events):
            lines = pages.fitting(events[start : start + LINES_PER_MESSAGE], _line, self._page_bytes)
            start += len(lines)
            yield pb.TailLogsResponse(lines=lines)


def _line(event: Event) -> pb.LogLine:
    text = job_messages.log_text(event)
    return pb.LogLine(sequence=event.sequence, time=dataset_messages.timestamp(event.time), log=text)
