"""The pace of replays: while jobs train, sending all of them takes a small share of the cores.

A replay of a long log is bulk work that nobody needs within the second, and on a machine without a GPU it takes the
cores from the trainer. Subscribers that replay get turns, one after another, in the order in which they asked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

SHARE = 0.02
"""The share of all cores that replays may use while jobs train."""
BURST_S = 2.0
"""The processor time that replays may use at once. It sends a million events to one subscriber."""
MESSAGE_S = 65e-6
BYTE_S = 0.5e-9
"""The processor time that it takes to send a page, for the message and for each byte. Pages are made once for all who
replay, so making them does not count: one subscriber alone replays at full speed."""
SHORTEST_SLEEP_S, LONGEST_SLEEP_S = 0.001, 0.1


class ReplayPace:
    """Gives turns. On the event loop only."""

    def __init__(
        self,
        cores: Callable[[], float | None],
        *,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`cores`: the cores that replays may keep busy now, or None for no limit."""
        self._cores = cores
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._sleep = sleep
        self._turns: deque[asyncio.Future[None]] = deque()
        self._giver: asyncio.Task[None] | None = None
        self._credit_s = BURST_S
        self._filled_at: float | None = None

    def ask(self) -> asyncio.Future[None]:
        """Return a turn, which is done when it has come. Cancel it to give it up."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        if self._giver is None:
            self._giver = asyncio.create_task(self._give())
        return turn

    def used(self, num_bytes: int) -> None:
        """Count a page that was sent."""
        self._credit_s -= MESSAGE_S + num_bytes * BYTE_S

    async def _give(self) -> None:
        while self._turns:
            turn = self._turns.popleft()
            while not turn.done() and (wait_s := self._owed_s()) > 0:
                await self._sleep(min(max(wait_s, SHORTEST_SLEEP_S), LONGEST_SLEEP_S))
            if not turn.done():
                turn.set_result(None)
                # Others run between two turns: the calls that wait, and the subscribers that follow live.
                await self._sleep(0)
        self._giver = None

    def _owed_s(self) -> float:
        """Return the seconds until replays may go on, or 0."""
        now, cores = self._clock(), self._cores()
        since, self._filled_at = self._filled_at, now
        if cores is None:
            self._credit_s = max(self._credit_s, 0.0)
            return 0.0
        self._credit_s = min(BURST_S, self._credit_s + cores * (now - (now if since is None else since)))
        return max(0.0, -self._credit_s / cores)
