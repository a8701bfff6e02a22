"""Who does what next in the embedder: rows to decode, batches to embed.

A batch holds whatever rows of the same model are ready, whoever asked for them. It is taken when it is full, or when
nothing is left to decode first; so batches are large under load, and a lone request does not wait for company. Stored
images are embedded with what callers leave over: theirs is always the next task.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass

from manyview_server.messages.embedding import ModelKey
from manyview_server.worker.embedding.embed_requests import DecodedRow, Request

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


class Lane:
    """Requests of one rank, from the queue to the network. Under the scheduler's lock."""

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self.to_decode: deque[Request] = deque()
        # By model, the one whose row has waited longest first.
        self._ready: OrderedDict[ModelKey, deque[DecodedRow]] = OrderedDict()
        self._num_ready = 0

    @property
    def may_decode(self) -> bool:
        """Whether an image is left to decode, and room for its row."""
        while self.to_decode and self.to_decode[0].is_over:
            self.to_decode.popleft()
        return bool(self.to_decode) and self._num_ready < READY_BATCHES * self._max_batch

    @property
    def may_embed(self) -> bool:
        """Whether a batch is to go: it is full, or nothing is left to wait for."""
        return bool(self._ready) and (self._is_full or not self.may_decode)

    @property
    def _is_full(self) -> bool:
        return any(len(rows) >= self._max_batch for rows in self._ready.values())

    def add(self, row: DecodedRow) -> None:
        """A row is ready for the network."""
        self._ready.setdefault(row.request.key, deque()).append(row)
        self._num_ready += 1

    def decode(self) -> DecodeTask:
        """The next image."""
        request = self.to_decode[0]
        row = request.num_taken
        if row == 0:
            request.first_decode = time.monotonic()
        request.num_taken += 1
        if request.num_taken == request.num_images:
            self.to_decode.popleft()
        return DecodeTask(request=request, row=row)

    def batch(self, num_threads: int, smallest_share: int) -> ForwardTask:
        """The next batch; an incomplete one is split among the threads."""
        full = self._is_full
        key, rows = next((k, rows) for k, rows in self._ready.items() if not full or len(rows) >= self._max_batch)
        share = max(smallest_share, -(-len(rows) // num_threads))
        taken = [rows.popleft() for _ in range(min(len(rows), self._max_batch if full else share))]
        self._num_ready -= len(taken)
        del self._ready[key]
        if rows:
            self._ready[key] = rows  # to the end: models take turns
        return ForwardTask(key=key, rows=[row for row in taken if not row.request.is_over])


class Scheduler:
    """The queues. Any thread; `take` waits."""

    def __init__(self, max_batch: int, max_bulk_batch: int, num_threads: int, smallest_share: int) -> None:
        """An incomplete batch is split among the threads, into parts of at least `smallest_share` rows."""
        self._smallest_share = smallest_share
        self._num_threads = num_threads
        self._changed = threading.Condition()
        self._requests: OrderedDict[int, Request] = OrderedDict()
        self._callers, self._bulk = Lane(max_batch), Lane(max_bulk_batch)

    def set_threads(self, num_threads: int) -> None:
        """Let only the first `num_threads` threads take tasks."""
        with self._changed:
            self._num_threads = num_threads
            self._changed.notify_all()

    def add(self, request: Request) -> None:
        """Queue all rows of a request."""
        with self._changed:
            self._requests[request.message.request_id] = request
            self._lane(request).to_decode.append(request)
            self._changed.notify_all()

    def cancel(self, request_id: int) -> Request | None:
        """Drop a request and return it, or return None if it is no longer there."""
        with self._changed:
            request = self._requests.get(request_id)
            if request is not None:
                self._end(request)
            return request

    def take(self, thread: int, *, decodes: bool = True, embeds: bool = True) -> Task:
        """The next task for thread number `thread`, of the kinds that it does. Waits for one."""
        with self._changed:
            while True:
                if thread < self._num_threads and (task := self._next(decodes, embeds)) is not None:
                    # What others waited for may have changed: room, or the last row before an incomplete batch.
                    self._changed.notify_all()
                    return task
                self._changed.wait()

    def decoded(self, row: DecodedRow) -> None:
        """A row is ready for the network."""
        with self._changed:
            row.request.last_decode = time.monotonic()
            if not row.request.is_over:
                self._lane(row.request).add(row)
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

    def _lane(self, request: Request) -> Lane:
        return self._bulk if request.is_bulk else self._callers

    def _next(self, decodes: bool, embeds: bool) -> Task | None:
        for lane in (self._callers, self._bulk):
            if embeds and lane.may_embed:
                return lane.batch(self._num_threads, self._smallest_share)
            if decodes and lane.may_decode:
                return lane.decode()
        return None
