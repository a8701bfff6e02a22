"""Decide which image a thread of the embedder decodes next, and which rows it embeds together.

A batch holds rows of the same model, from any requests. It is taken when it is full, or when no image is left to
decode. So batches are large under load, and a lone request does not wait for others. The images that callers send
always come before stored images.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass

from manyview_server.messages.embedding import ModelKey
from manyview_server.worker.embedding.embed_requests import DecodedRow, EmbedRequest

READY_BATCHES = 8
"""No image is decoded while this many batches wait for the network."""


@dataclass(frozen=True, kw_only=True)
class DecodeTask:
    """Decode one image."""

    request: EmbedRequest
    row: int


@dataclass(frozen=True, kw_only=True)
class ForwardTask:
    """Embed these rows together."""

    key: ModelKey
    rows: list[DecodedRow]


Task = DecodeTask | ForwardTask


class Lane:
    """Requests of one priority, from the queue to the network. The scheduler's lock protects it."""

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self.to_decode: deque[EmbedRequest] = deque()
        # The rows by model. The model whose row has waited longest comes first.
        self._ready: OrderedDict[ModelKey, deque[DecodedRow]] = OrderedDict()
        self._num_ready = 0

    @property
    def may_decode(self) -> bool:
        """Is an image left to decode, and is there room for its row?"""
        while self.to_decode and self.to_decode[0].is_over:
            self.to_decode.popleft()
        return bool(self.to_decode) and self._num_ready < READY_BATCHES * self._max_batch

    @property
    def may_embed(self) -> bool:
        """Should a batch be embedded now, because it is full or nothing is left to wait for?"""
        return bool(self._ready) and (self._is_full or not self.may_decode)

    @property
    def _is_full(self) -> bool:
        return any(len(rows) >= self._max_batch for rows in self._ready.values())

    def add(self, row: DecodedRow) -> None:
        """Add a row that is ready for the network."""
        self._ready.setdefault(row.request.key, deque()).append(row)
        self._num_ready += 1

    def decode(self) -> DecodeTask:
        """Take the next image."""
        request = self.to_decode[0]
        row = request.num_taken
        if row == 0:
            request.first_decode = time.monotonic()
        request.num_taken += 1
        if request.num_taken == request.num_images:
            self.to_decode.popleft()
        return DecodeTask(request=request, row=row)

    def batch(self, num_threads: int, smallest_share: int) -> ForwardTask:
        """Take the next batch. An incomplete one is split among the threads."""
        full = self._is_full
        key, rows = next((k, rows) for k, rows in self._ready.items() if not full or len(rows) >= self._max_batch)
        share = max(smallest_share, -(-len(rows) // num_threads))
        taken = [rows.popleft() for _ in range(min(len(rows), self._max_batch if full else share))]
        self._num_ready -= len(taken)
        del self._ready[key]
        if rows:
            self._ready[key] = rows  # at the end, so that models take turns
        return ForwardTask(key=key, rows=[row for row in taken if not row.request.is_over])


class Scheduler:
    """The queues of the embedder. Any thread may use it, and `take` waits."""

    def __init__(self, max_batch: int, max_bulk_batch: int, num_threads: int, smallest_share: int) -> None:
        """An incomplete batch is split among the threads, into parts of at least `smallest_share` rows."""
        self._smallest_share = smallest_share
        self._num_threads = num_threads
        self._changed = threading.Condition()
        self._requests: OrderedDict[int, EmbedRequest] = OrderedDict()
        self._callers, self._bulk = Lane(max_batch), Lane(max_bulk_batch)

    def set_threads(self, num_threads: int) -> None:
        """Let only the first `num_threads` threads take tasks."""
        with self._changed:
            self._num_threads = num_threads
            self._changed.notify_all()

    def add(self, request: EmbedRequest) -> None:
        """Queue all rows of a request."""
        with self._changed:
            self._requests[request.message.request_id] = request
            self._lane(request).to_decode.append(request)
            self._changed.notify_all()

    def cancel(self, request_id: int) -> EmbedRequest | None:
        """Drop a request and return it, or return None if it is no longer there."""
        with self._changed:
            request = self._requests.get(request_id)
            if request is not None:
                self._end(request)
            return request

    def take(self, thread: int, *, decodes: bool = True, embeds: bool = True) -> Task:
        """Wait for the next task of thread number `thread`, of the kinds that it does, and return it."""
        with self._changed:
            while True:
                if thread < self._num_threads and (task := self._next(decodes, embeds)) is not None:
                    # Another thread may have waited for this: for room, or for the last row before an incomplete batch.
                    self._changed.notify_all()
                    return task
                self._changed.wait()

    def decoded(self, row: DecodedRow) -> None:
        """Add a row that is ready for the network."""
        with self._changed:
            row.request.last_decode = time.monotonic()
            if not row.request.is_over:
                self._lane(row.request).add(row)
            self._changed.notify_all()

    def rows_done(self, request: EmbedRequest, num_rows: int) -> bool:
        """Note that so many rows of a request are done, with or without an error.

        Return True to the caller that must answer the request, because they were its last ones.
        """
        with self._changed:
            request.num_done += num_rows
            if request.is_over or request.num_done < request.num_images:
                return False
            self._end(request)
            return True

    def give_up(self, request: EmbedRequest) -> bool:
        """End a request before it is complete. Return True to the first caller, which must report it."""
        with self._changed:
            was_over = request.is_over
            self._end(request)
            return not was_over

    def _end(self, request: EmbedRequest) -> None:
        request.is_over = True
        self._requests.pop(request.message.request_id, None)
        self._changed.notify_all()

    def _lane(self, request: EmbedRequest) -> Lane:
        return self._bulk if request.is_bulk else self._callers

    def _next(self, decodes: bool, embeds: bool) -> Task | None:
        for lane in (self._callers, self._bulk):
            if embeds and lane.may_embed:
                return lane.batch(self._num_threads, self._smallest_share)
            if decodes and lane.may_decode:
                return lane.decode()
        return None
