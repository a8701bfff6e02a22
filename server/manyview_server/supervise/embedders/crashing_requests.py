"""Requests that were in work when their process died: tried once more, alone, and refused when it dies again.

Many requests share the process, and its death does not say which one did it. Of those that were there each is tried
alone when it comes again: then the next death is its own, and nobody else's.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

MAX_REMEMBERED = 4096


class Quarantine:
    """Suspects and culprits among requests, known by their fingerprints; the oldest are forgotten."""

    def __init__(self) -> None:
        # Whether it is a culprit.
        self._known: OrderedDict[bytes, bool] = OrderedDict()
        self._turn = asyncio.Condition()
        self._inside = 0
        self._alone = False
        self._waiting = 0

    def is_culprit(self, fingerprint: bytes) -> bool:
        """Whether the process died of this request, and of no other."""
        return self._known.get(fingerprint, False)

    def blame(self, fingerprints: Iterable[bytes]) -> None:
        """The process died while these were in work. One that was alone, having been suspected, is a culprit."""
        for fingerprint in set(fingerprints):
            self._known[fingerprint] = self._alone and fingerprint in self._known
            self._known.move_to_end(fingerprint)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    def acquit(self, fingerprint: bytes) -> None:
        """It was answered."""
        self._known.pop(fingerprint, None)

    @asynccontextmanager
    async def turn(self, fingerprint: bytes) -> AsyncIterator[None]:
        """Together with others, or alone for a suspect. Suspects go first, or they would never find the room empty."""
        alone = fingerprint in self._known
        await self._enter(alone)
        try:
            yield
        finally:
            self._inside -= 1
            self._alone = False
            await asyncio.shield(self._tell())

    async def _enter(self, alone: bool) -> None:
        async with self._turn:
            self._waiting += alone
            try:
                await self._turn.wait_for(lambda: self._inside == 0 if alone else not (self._alone or self._waiting))
            finally:
                self._waiting -= alone
                self._turn.notify_all()
            self._inside += 1
            self._alone = alone

    async def _tell(self) -> None:
        async with self._turn:
            self._turn.notify_all()
