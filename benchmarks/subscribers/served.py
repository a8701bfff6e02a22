"""The server, which also writes down when it commits events: rows of (last sequence, seconds since the epoch).

    python -m benchmarks.subscribers.served FILE TICK_S serve --data DIR …

With a `TICK_S` above 0, it logs scalars of the job so often by itself, as if a trainer had sent them.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.subscribers.stage import JOB, ROW, SCALARS

from manyview_server.__main__ import main
from manyview_server.front.app import App
from manyview_server.store.database.database import Database
from manyview_server.store.event_payloads import Scalars
from manyview_server.store.jobs.events import EventLog
from manyview_server.store.records import NewEvent


def note_commits(path: str) -> None:
    """Let each commit of events append a row to the file. The time is taken right after SQLite has synced."""
    transact = Database.transact
    file = open(path, "ab", buffering=0)  # noqa: SIM115 (it is open as long as the process lives)

    def noted(database: Database, change: Callable[..., Any], *, vital: bool = False) -> Any:
        result = transact(database, change, vital=vital)
        at = time.time()
        events = getattr(result[-1], "events", ()) if isinstance(result, tuple) and result else ()
        if events:
            file.write(ROW.pack(events[-1].sequence, at))
        return result

    Database.transact = noted  # type: ignore[method-assign,assignment]


def tick(every_s: float) -> None:
    """Let the server log scalars of the job every `every_s` seconds while it serves."""
    serve = App.serve

    async def append(events: EventLog) -> None:
        for step in itertools.count(1):
            await asyncio.sleep(every_s)
            values = {name: random.random() for name in SCALARS}
            await events.append(JOB, [NewEvent(payload=Scalars(values=values), step=step)])

    async def ticking(app: App) -> None:
        task = asyncio.create_task(append(app._store.events))
        await serve(app)
        task.cancel()

    App.serve = ticking  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    note_commits(sys.argv[1])
    if (every_s := float(sys.argv[2])) > 0:
        tick(every_s)
    sys.exit(main(sys.argv[3:]))
