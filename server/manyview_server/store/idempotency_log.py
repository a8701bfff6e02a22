"""The log of idempotent requests: a request that is sent again gets the same answer, for at least a day.

The answer is stored after the work is done. After a crash between the two, the repeated request meets its own effect,
such as ALREADY_EXISTS, but the work is never done twice.

The newest answers are kept at any age, because a clock that jumps forward must not make a server forget the request
that it answered a second ago. After a jump back, answers with a time in the future stay until the clock has passed
them.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable

from manyview_server.errors import AlreadyExists
from manyview_server.store.database.database import Database

KEEP_S = 24 * 3600.0
KEEP_NEWEST = 1000
# The most old answers that are deleted with each new one. After a busy day there are many.
MAX_REMOVED = 1_000

# The identity of a request: its method, and a hash of its body.
Identity = tuple[str, bytes]


class IdempotencyLog:
    """The answers to requests that carry an id."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._running: dict[str, tuple[Identity, asyncio.Task[bytes]]] = {}

    async def once(self, request_id: str, method: str, body_hash: bytes, fn: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the answer of `fn`, which runs once for this id. With an empty id it runs each time.

        Failures are not kept. Raises AlreadyExists REQUEST_ID_REUSED if the id came with another method or body before.
        """
        if not request_id:
            return await fn()
        identity = (method, body_hash)
        if request_id in self._running:
            first, task = self._running[request_id]
            _check(request_id, first, identity)
        else:
            task = asyncio.create_task(self._run(request_id, identity, fn))
            self._running[request_id] = (identity, task)
            task.add_done_callback(lambda _: self._running.pop(request_id))
        # The work continues if the caller hangs up.
        return await asyncio.shield(task)

    async def _run(self, request_id: str, identity: Identity, fn: Callable[[], Awaitable[bytes]]) -> bytes:
        kept = await self._database.read(lambda c: _find(c, request_id))
        if kept is not None:
            _check(request_id, kept[0], identity)
            return kept[1]
        reply = await fn()
        await self._database.write(lambda c: _keep(c, request_id, identity, reply, self._clock()), vital=True)
        return reply


def _check(request_id: str, first: Identity, identity: Identity) -> None:
    if first != identity:
        raise AlreadyExists("REQUEST_ID_REUSED", f"request id {request_id!r} was used for another request")


def _find(connection: sqlite3.Connection, request_id: str) -> tuple[Identity, bytes] | None:
    sql = "SELECT method, body_hash, reply FROM request WHERE request_id = ?"
    row = connection.execute(sql, (request_id,)).fetchone()
    return None if row is None else ((row[0], row[1]), row[2])


def _keep(connection: sqlite3.Connection, request_id: str, identity: Identity, reply: bytes, now: float) -> None:
    insert = "INSERT OR REPLACE INTO request VALUES (?, ?, ?, ?, ?)"
    connection.execute(insert, (request_id, *identity, reply, now))
    # While there are only few answers, the inner query finds no row, and nothing is deleted.
    newest = "SELECT time FROM request ORDER BY time DESC LIMIT 1 OFFSET ?"
    old = f"SELECT request_id FROM request WHERE time < min(?, ({newest})) ORDER BY time LIMIT ?"
    values = (now - KEEP_S, KEEP_NEWEST - 1, MAX_REMOVED)
    connection.execute(f"DELETE FROM request WHERE request_id IN ({old})", values)
