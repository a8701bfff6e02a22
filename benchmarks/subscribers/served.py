"""The server, which also writes down when it commits events: rows of (last sequence, seconds since the epoch).

python -m benchmarks.subscribers.served FILE serve --data DIR …
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable
from typing import Any

from manyview_server.__main__ import main
from manyview_server.store.database.database import Database

ROW = struct.Struct("qd")


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


if __name__ == "__main__":
    note_commits(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
