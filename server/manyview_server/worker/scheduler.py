"""Who does what next in the embedder: rows to decode, batches to embed.

A batch holds whatever rows of the same model are ready, whoever asked for them. It is taken when it is full, or when
nothing is left to decode first; so batches are large under load, and a lone request does not wait for company.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass

from manyview_server.worker.models import ModelKey
from manyview_server.worker.requests import DecodedRow, Request

READY_BATCHES = 8
"""Decoding pauses while so many batches wait for the network."""


@dataclass(frozen=True, kw_only=True)
class DecodeTask:
    """Decode one image."""

    request: Request
    row: int


@dataclass(frozen=True, kw_only=True)
class ForwardTask:
    """Embed these rows together."""

    key: ModelKey
    rows: list[DecodedRow]


Task = DecodeTask | ForwardTask


class Scheduler:
    """The queues. Any thread; `take` waits."""

    def __init__(self, max_batch: int, num_threads: int, smallest_share: int) -> None:
        """An incomplete batch is split among the threads, into parts of at least `smallest_share` rows."""
        self._smallest_share = smallest_share
        self._max_batch = max_batch
        self._num_threads = num_threads
        self._changed = threading.Condition()
        self._requests: OrderedDict[int, Request] = OrderedDict()
        self._to_decode: deque[Request] = deque()
        # By model, the one whose row has waited longest first.
        self._ready: OrderedDict[ModelKey, deque[DecodedRow]] = OrderedDict()
        self._num_ready = 0

    def set_threads(self, num_threads: int) -> None:
        """Let only the first `num_threads` threads take tasks."""
        with self._changed:
            self._num_threads = num_threads
            self._changed.notify_all()

    def add(self, request: Request) -> None:
        """Queue all rows of a request."""
        with self._changed:
            self._requests[request.message.request_id] = request
            self._to_decode.append(request)
            self._changed.notify_all()

    def cancel(self, request_id: int) -> None:
        """Drop a request; one that is not there any more is no error."""
        with self._changed:
            request = self._requests.get(request_id)
            if request is not None:
                self._end(request)

    def take(self, thread: int, *, decodes: bool = True, embeds: bool = True) -> Task:
        """The next task for thread number `thread`, of the kinds that it does. Waits for one."""
        with self._changed:
            while True:
                if thread < self._num_threads and (task := self._next(decodes, embeds)) is not None:
                    return task
                self._changed.wait()

    def decoded(self, row: DecodedRow) -> None:
        """A row is ready for the network."""
        with self._changed:
            row.request.last_decode = time.monotonic()
            if not row.request.is_over:
                self._ready.setdefault(row.request.key, deque()).append(row)
                self._num_ready += 1
            self._changed.notify_all()

    def rows_done(self, request: Request, num_rows: int) -> bool:
        """So many rows of a request are done, well or badly. True when it is complete, to whoever shall answer it."""
        with self._changed:
            request.num_done += num_rows
            if request.is_over or request.num_done < request.num_images:
                return False
            self._end(request)
            return True

    def give_up(self, request: Request) -> bool:
        """End a request before its time. True to whoever shall say so to its caller."""
        with self._changed:
            was_over = request.is_over
            self._end(request)
            return not was_over

    def _end(self, request: Request) -> None:
        request.is_over = True
        self._requests.pop(request.message.request_id, None)
        self._changed.notify_all()

    def _next(self, decodes: bool, embeds: bool) -> Task | None:
        while self._to_decode and self._to_decode[0].is_over:
            self._to_decode.popleft()
        full = any(len(rows) >= self._max_batch for rows in self._ready.values())
        has_room = self._num_ready < READY_BATCHES * self._max_batch
        may_decode = bool(self._to_decode) and has_room
        if embeds and self._ready and (full or not may_decode):
            return self._batch(full)
        return self._decode() if decodes and may_decode else None

    def _decode(self) -> DecodeTask:
        request = self._to_decode[0]
        row = request.num_taken
        if row == 0:
            request.first_decode = time.monotonic()
        request.num_taken += 1
        if request.num_taken == request.num_images:
            self._to_decode.popleft()
            self._changed.notify_all()  # nothing is left to wait for: an incomplete batch may go
        return DecodeTask(request=request, row=row)

    def _batch(self, full: bool) -> ForwardTask:
        key, rows = next((key, rows) for key, rows in self._ready.items() if not full or len(rows) >= self._max_batch)
        share = max(self._smallest_share, -(-len(rows) // self._num_threads))
        taken = [rows.popleft() for _ in range(min(len(rows), self._max_batch if full else share))]
        self._num_ready -= len(taken)
        del self._ready[key]
        if rows:
            self._ready[key] = rows  # to the end: models take turns
        self._changed.notify_all()
        return ForwardTask(key=key, rows=[row for row in taken if not row.request.is_over])
