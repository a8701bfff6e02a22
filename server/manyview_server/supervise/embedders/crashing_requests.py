"""Requests that were in progress when their process died: each is tried once more, alone, and refused if it dies again.

Many requests share the process, and its death does not say which one caused it. So all of them are suspects. A suspect
that comes again has the process for itself, and if that dies too, the request is the culprit.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

MAX_REMEMBERED = 4096


class CrashingRequests:
    """The suspects and culprits among requests, by their fingerprints. The oldest ones are forgotten."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, bool] = OrderedDict()
        """True for a culprit, False for a suspect."""
        self._turn = asyncio.Condition()
        self._num_inside = 0
        self._is_alone = False
        self._num_suspects_waiting = 0
        self._num_waiting = 0

    def is_culprit(self, fingerprint: bytes) -> bool:
        """Did the process die while it worked on this request alone?"""
        return self._known.get(fingerprint, False)

    def record_death(self, fingerprints: Iterable[bytes]) -> None:
        """Note that the process died while these were in progress. A suspect that was alone becomes a culprit."""
        for fingerprint in set(fingerprints):
            self._known[fingerprint] = self._is_alone and fingerprint in self._known
            self._known.move_to_end(fingerprint)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    def clear(self, fingerprint: bytes) -> None:
        """Note that the request was answered: it is no suspect any more."""
        self._known.pop(fingerprint, None)

    @asynccontextmanager
    async def turn(self, fingerprint: bytes) -> AsyncIterator[None]:
        """Wait until the request may be in progress: beside others, or alone if it is a suspect.

        Suspects go first, because otherwise new requests would keep the process busy, and a suspect would never be
        alone.
        """
        await self._enter(alone=fingerprint in self._known)
        try:
            yield
        finally:
            self._num_inside -= 1
            self._is_alone = False
            if self._num_waiting:
                await asyncio.shield(self._notify())

    async def _enter(self, *, alone: bool) -> None:
        if self._num_waiting == 0 and not alone and self._may_share():
            self._num_inside += 1
            return
        self._num_suspects_waiting += alone
        self._num_waiting += 1
        try:
            async with self._turn:
                try:
                    await self._turn.wait_for(self._is_empty if alone else self._may_share)
                finally:
                    self._num_suspects_waiting -= alone
                    self._turn.notify_all()
                self._num_inside += 1
                self._is_alone = alone
        finally:
            self._num_waiting -= 1

    def _is_empty(self) -> bool:
        return self._num_inside == 0

    def _may_share(self) -> bool:
        return not (self._is_alone or self._num_suspects_waiting)

    async def _notify(self) -> None:
        async with self._turn:
            self._turn.notify_all()
