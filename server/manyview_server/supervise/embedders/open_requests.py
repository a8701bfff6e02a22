"""Requests that an embedder process may be working on, whether or not a caller still waits for the answer.

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

MAX_ABANDONED = 1024


@dataclass(frozen=True, slots=True, eq=False)
class OpenRequest:
    """A request that the embedder may be working on."""

    request_id: int
    fingerprint: bytes
    image_ids: tuple[int, ...]
    answer: asyncio.Future[EmbedDone]


class OpenRequests:
    """The requests of one process by their ids."""

    def __init__(self) -> None:
        self.waiting: dict[int, OpenRequest] = {}
        """The requests that a caller waits for."""
        self._abandoned: OrderedDict[int, OpenRequest] = OrderedDict()

    def add(self, request: OpenRequest) -> None:
        """Add a request that a caller waits for."""
        self.waiting[request.request_id] = request

    def leave(self, request: OpenRequest) -> None:
        """Note that nobody waits for this any more. If it has not been answered, it may still be in a decoder."""
        del self.waiting[request.request_id]
        if not request.answer.done() or request.answer.cancelled():
            self._abandoned[request.request_id] = request
            while len(self._abandoned) > MAX_ABANDONED:
                self._abandoned.popitem(last=False)
        request.answer.cancel()

    def image_of(self, note: Note) -> int | None:
        """Return the id of the image that a note of a decode is about, or None if its request is not known."""
        request = self._get(note.request)
        return request.image_ids[note.item] if request and note.item < len(request.image_ids) else None

    def suspects(self, notes: Iterable[Note]) -> set[bytes]:
        """Return the fingerprints of the requests of which one must have caused the death of the process, which left
        these notes.

        A decode and the loading of a model belong to one request. A pass of a network may belong to any request, and so
        may a death without a note: then every request that a caller waits for is a suspect too.
        """
        found = list(notes)
        suspects = {request.fingerprint for note in found if (request := self._get(note.request))}
        if not found or any(note.kind == FORWARD for note in found):
            suspects |= {request.fingerprint for request in self.waiting.values()}
        return suspects

    def fail(self, error: Exception) -> None:
        """Raise `error` for every caller that waits."""
        for request in self.waiting.values():
            if not request.answer.done():
                request.answer.set_exception(error)

    def _get(self, request_id: int) -> OpenRequest | None:
        return self.waiting.get(request_id) or self._abandoned.get(request_id)
