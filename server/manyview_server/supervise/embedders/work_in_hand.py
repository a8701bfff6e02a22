"""Requests that an embedder may be working on, whether or not a caller still waits for the answer.

A caller that gives up takes its request out of the queue, but not out of a decoder. The request is remembered until its
process has ended, so that an image can be named and refused although nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from manyview_server.link.decode_notes import FORWARD, Note
from manyview_server.messages.embedding import EmbedDone

MAX_FORSAKEN = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A request that the embedder may be working on."""

    request_id: int
    fingerprint: bytes
    image_ids: tuple[int, ...]
    answer: asyncio.Future[EmbedDone]


class WorkInHand:
    """The requests of one embedder by their ids."""

    def __init__(self) -> None:
        self.waiting: dict[int, Work] = {}
        """The requests that a caller waits for."""
        self._forsaken: OrderedDict[int, Work] = OrderedDict()

    def add(self, work: Work) -> None:
        """Add a request that a caller waits for."""
        self.waiting[work.request_id] = work

    def leave(self, work: Work) -> None:
        """Note that nobody waits for this any more. If it has not been answered, it may still be in a decoder."""
        del self.waiting[work.request_id]
        if not work.answer.done() or work.answer.cancelled():
            self._forsaken[work.request_id] = work
            while len(self._forsaken) > MAX_FORSAKEN:
                self._forsaken.popitem(last=False)
        work.answer.cancel()

    def process_ended(self) -> None:
        """Forget the requests that nobody waits for: nothing is in a decoder any more."""
        self._forsaken.clear()

    def image_of(self, note: Note) -> int | None:
        """Return the id of the image that a note of a decode is about, where its request is known."""
        work = self._get(note.request)
        return work.image_ids[note.item] if work and note.item < len(work.image_ids) else None

    def suspects(self, notes: Iterable[Note]) -> set[bytes]:
        """Return the fingerprints of the requests of which one must have caused what these notes of a dead process
        show.

        A decode and the loading of a model belong to one request. A pass of a network may belong to any request, and so
        may a death without a note: then every request that a caller waits for is a suspect too.
        """
        found = list(notes)
        suspects = {work.fingerprint for note in found if (work := self._get(note.request))}
        if not found or any(note.kind == FORWARD for note in found):
            suspects |= {work.fingerprint for work in self.waiting.values()}
        return suspects

    def fail(self, error: Exception) -> None:
        """Raise `error` for every caller that waits."""
        for work in self.waiting.values():
            if not work.answer.done():
                work.answer.set_exception(error)

    def _get(self, request_id: int) -> Work | None:
        return self.waiting.get(request_id) or self._forsaken.get(request_id)
