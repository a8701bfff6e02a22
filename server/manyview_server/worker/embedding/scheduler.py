"""Decide which image a thread of the embedder decodes next, and which rows it embeds together.

A batch holds rows of the same model, from any requests. It is taken when it is full, or when no image is left to
decode and it has a thread's share of the requests that came together lately. If it has fewer rows, it waits for a part
of the time of a pass: the callers that were just answered come again. So batches are large under load, and a caller
who is alone waits for nobody. A batch is full when it takes `LONGEST_PASS_S`, as the passes before it show, or when it
has `max_batch` rows.

Requests take turns of `TURN_IMAGES` images, and after each turn a request lets those pass that come within the next
one. So a request of 1,000 images delays a small one by one turn and the pass that is running, small ones keep the order
in which they came, and a large one has its next turn however many small ones come. The images that callers send always
come before stored images.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

from manyview_server.messages.embedding import ModelKey
from manyview_server.worker.embedding.embed_requests import DecodedRow, EmbedRequest
from manyview_server.worker.embedding.recent_peak import RecentPeak

READY_BATCHES = 8
"""No image is decoded while this many batches wait for the network."""
LONGEST_PASS_S = 0.3
"""A thread's pass takes no longer, if one image does not. ResNet-18 at 224 px has batches of 8 then, which are as fast
for each image as those of 16, and a request that comes waits half as long for a thread."""
TURN_IMAGES = 8
"""The images of a request that are decoded before the next request has its turn."""
MAX_TIMED = 64
"""The most models whose times are remembered."""
GATHER_FRACTION = 0.5
"""The part of a pass for which an incomplete batch waits for more rows. ResNet-18 at 64 px takes 8.4 ms for an image
alone and 5.1 in a batch of 4, because each pass reads all weights."""
RECENT_S = 0.5
"""Requests count as expected for once or twice this time after they came."""


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

Place = tuple[int, int, int]
"""The place of an image in the order: when its turn came, the number of its request, and its row."""


class PassTimes:
    """The time that an image takes in a pass of each model, and so the largest batch."""

    def __init__(self, max_batch: int, longest_pass_s: float = LONGEST_PASS_S) -> None:
        self._max_batch = max_batch
        self._longest_pass_s = longest_pass_s
        self._image_s: OrderedDict[ModelKey, float] = OrderedDict()

    def add(self, key: ModelKey, num_images: int, pass_s: float) -> None:
        """Note the time of a pass. A shorter one counts at once, because the first passes also prepare the kernels."""
        image_s = pass_s / num_images
        before = self._image_s.pop(key, image_s)
        self._image_s[key] = image_s if image_s < before else 0.8 * before + 0.2 * image_s
        if len(self._image_s) > MAX_TIMED:
            self._image_s.popitem(last=False)

    def image_s(self, key: ModelKey) -> float:
        """Return the time of an image in a pass, or 0 before the first one."""
        return self._image_s.get(key, 0.0)

    def max_batch(self, key: ModelKey) -> int:
        """Return the number of images in a full batch."""
        image_s = self.image_s(key)
        if image_s * self._max_batch <= self._longest_pass_s:
            return self._max_batch
        return max(1, int(self._longest_pass_s / image_s))


class Lane:
    """Requests of one priority, from the queue to the network. The scheduler's lock protects it."""

    def __init__(self, max_batch: int, times: PassTimes) -> None:
        self._most = max_batch
        self._times = times
        self._num_decoded = 0
        """The number of images that were taken. It is the clock of the turns."""
        self._to_decode: list[tuple[Place, EmbedRequest]] = []
        self._ready: dict[ModelKey, list[tuple[Place, int, DecodedRow]]] = {}
        """The rows that wait for the network, each with the number of images that had been taken when it came."""
        self._gathers_since: dict[ModelKey, float] = {}
        """When the batch of each of these models got its first row, or the one before it was taken."""
        self._num_ready = 0

    @property
    def may_decode(self) -> bool:
        """Is an image left to decode, and is there room for its row?"""
        while self._to_decode and self._to_decode[0][1].is_over:
            heapq.heappop(self._to_decode)
        return bool(self._to_decode) and self._num_ready < READY_BATCHES * self._most

    def embed_at(self, share: int) -> float | None:
        """Return the time at which a batch should be embedded, if nothing else happens; 0 for now, None for never.

        Args:
            share: the rows that are worth waiting for.
        """
        if any(map(self._is_due, self._ready)):
            return 0.0
        if not self._ready or self.may_decode:
            return None
        return min(self._gathered_at(key, share) for key in self._ready)

    def queue(self, request: EmbedRequest) -> None:
        """Queue the images of a request, behind those that came before."""
        request.turns.append(self._num_decoded)
        heapq.heappush(self._to_decode, (_place(request, 0), request))

    def add(self, row: DecodedRow) -> None:
        """Add a row that is ready for the network."""
        key = row.request.key
        if key not in self._ready:
            self._gathers_since[key] = time.monotonic()
        heapq.heappush(self._ready.setdefault(key, []), (_place(row.request, row.row), self._num_decoded, row))
        self._num_ready += 1

    def decode(self) -> DecodeTask:
        """Take the next image."""
        _, request = heapq.heappop(self._to_decode)
        self._num_decoded += 1
        task = DecodeTask(request=request, row=request.take())
        if request.num_taken < request.num_images:
            if request.num_taken % TURN_IMAGES == 0:
                request.turns.append(self._num_decoded + TURN_IMAGES)
            heapq.heappush(self._to_decode, (_place(request, request.num_taken), request))
        return task

    def batch(self, num_threads: int, smallest_share: int, share: int) -> ForwardTask:
        """Take the next batch, of the model whose row came first among those that need not wait.

        An incomplete one is split among the threads, but not into parts below `smallest_share` or `share`.
        """
        now = time.monotonic()
        keys = [key for key in self._ready if self._is_due(key)]
        keys = keys or [key for key in self._ready if self._gathered_at(key, share) <= now]
        key = min(keys, key=lambda key: self._ready[key][0])
        rows, most = self._ready[key], self._max_batch(key)
        part = most if len(rows) >= most else max(smallest_share, share, -(-len(rows) // num_threads))
        taken = [heapq.heappop(rows)[-1] for _ in range(min(len(rows), most, part))]
        self._num_ready -= len(taken)
        self._gathers_since[key] = now
        if not rows:
            del self._ready[key], self._gathers_since[key]
        return ForwardTask(key=key, rows=[row for row in taken if not row.request.is_over])

    def _gathered_at(self, key: ModelKey, share: int) -> float:
        """Return when a model's batch stops waiting for more rows; 0 if it has enough of them."""
        share = min(share, self._max_batch(key))
        if len(self._ready[key]) >= share:
            return 0.0
        return self._gathers_since[key] + GATHER_FRACTION * share * self._times.image_s(key)

    def _max_batch(self, key: ModelKey) -> int:
        return min(self._most, self._times.max_batch(key))

    def _is_due(self, key: ModelKey) -> bool:
        """Is a model's batch full, or have as many images as a full batch been taken since its first row came?

        Otherwise the images of a large request would keep those of other models from a pass.
        """
        rows, most = self._ready[key], self._max_batch(key)
        return len(rows) >= most or self._num_decoded - rows[0][1] >= most


def _place(request: EmbedRequest, row: int) -> Place:
    return request.turns[row // TURN_IMAGES], request.message.request_id, row


class Scheduler:
    """The queues of the embedder. Any thread may use it, and `take` waits."""

    def __init__(self, max_batch: int, max_bulk_batch: int, num_threads: int, smallest_share: int) -> None:
        """An incomplete batch is split among the threads, into parts of at least `smallest_share` rows."""
        self._smallest_share = smallest_share
        self._num_threads = num_threads
        lock = threading.RLock()
        self._changed, self._single_changed = threading.Condition(lock), threading.Condition(lock)
        self._requests: dict[int, EmbedRequest] = {}
        self._times = PassTimes(max_batch)
        self._callers, self._bulk = Lane(max_batch, self._times), Lane(max_bulk_batch, self._times)
        self._num_callers = 0
        """The number of requests that bring their images."""
        self._peak = RecentPeak(RECENT_S)
        """The peak of `_num_callers`."""
        self._single: EmbedRequest | None = None
        self._takes_single = False
        """Is a thread waiting in `take_single`?"""

    def set_threads(self, num_threads: int) -> None:
        """Let only the first `num_threads` threads take tasks."""
        with self._changed:
            self._num_threads = num_threads
            self._changed.notify_all()

    def add(self, request: EmbedRequest) -> None:
        """Queue all rows of a request."""
        with self._changed:
            is_single = not self._requests and request.num_images == 1 and not request.is_bulk
            self._requests[request.message.request_id] = request
            if not request.is_bulk:
                self._num_callers += 1
                self._peak.note(self._num_callers, request.arrived)
            is_single = is_single and self._peak.value(request.arrived) == 1
            if is_single and self._takes_single and self._num_threads > 1:
                self._single, self._takes_single = request, False
                self._single_changed.notify_all()
            else:
                self._lane(request).queue(request)
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
                embed_at = self._callers.embed_at(self._share()) if embeds and thread < self._num_threads else None
                self._changed.wait(None if embed_at is None else max(0.0, embed_at - time.monotonic()))

    def take_single(self) -> DecodeTask:
        """Wait for a request of one image that comes while there is no other, and was none a moment ago, and while
        several threads may work.

        Its caller decodes and embeds it, with the cores of all threads.
        """
        with self._single_changed:
            self._takes_single = True
            while self._single is None:
                self._single_changed.wait()
            request, self._single = self._single, None
            return DecodeTask(request=request, row=request.take())

    def passed(self, key: ModelKey, num_images: int, pass_s: float) -> None:
        """Note how long a pass took."""
        with self._changed:
            self._times.add(key, num_images, pass_s)

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
        if self._requests.pop(request.message.request_id, None) is not None and not request.is_bulk:
            self._num_callers -= 1
        self._changed.notify_all()

    def _lane(self, request: EmbedRequest) -> Lane:
        return self._bulk if request.is_bulk else self._callers

    def _next(self, decodes: bool, embeds: bool) -> Task | None:
        for lane, share in ((self._callers, self._share()), (self._bulk, 1)):
            embed_at = lane.embed_at(share) if embeds else None
            if embed_at is not None and embed_at <= time.monotonic():
                return lane.batch(self._num_threads, self._smallest_share, share)
            if decodes and lane.may_decode:
                return lane.decode()
        return None

    def _share(self) -> int:
        """Return a thread's share of the callers that came together lately, with one row each."""
        expected = max(self._num_callers, self._peak.value(time.monotonic()))
        return max(1, -(-expected // self._num_threads))
