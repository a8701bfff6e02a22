"""Everything that one client of a scenario saw, in a file that outlives the client: a line of JSON for each operation.

Operations, by the field `op`:

    acked     dataset, key, sha256                  the server acknowledged this image
    finished  dataset, num_sent, num_stored         an upload was finished; num_stored are those of this run
    event     job, sequence, attempt, step, epoch, kind, time, payload (JSON text)
    ended     job                                   the server said that the job's log is at its end
    embedded  rows, refused, checkpoint             an answer to a batch of images
    failed    reason                                a call failed in a way that the client expects
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import manyview

Record = dict[str, Any]


class History:
    """Appends to a file. A line is one write, so that SIGKILL leaves whole lines, or a torn last one."""

    def __init__(self, path: Path) -> None:
        """A torn line of an earlier run is closed first: it is then no JSON, and is passed over."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        if _is_torn(path):
            os.write(self._file, b"\n")

    def log(self, op: str, **fields: Any) -> None:
        """Append one operation."""
        os.write(self._file, json.dumps({"op": op, **fields}).encode() + b"\n")

    def log_event(self, job: str, event: manyview.Event) -> None:
        """Append an event of a job's log."""
        self.log("event", **record_of(job, event))


def record_of(job: str, event: manyview.Event) -> Record:
    """An event as a history holds it, without the operation's name."""
    return {
        "job": job,
        "sequence": event.sequence,
        "attempt": event.attempt,
        "step": event.step,
        "epoch": event.epoch,
        "kind": event.kind,
        "time": str(event.time),
        "payload": json.dumps(dict(event.values), sort_keys=True),
    }


class Reader:
    """Reads a history while it grows: each line once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._num_bytes = 0
        self._records: list[Record] = []

    def read(self, *ops: str) -> list[Record]:
        """The operations so far, whole lines only; with `ops` those alone. Empty where there is no file yet."""
        self._records += self._news()
        return [record for record in self._records if not ops or record["op"] in ops]

    def _news(self) -> Iterator[Record]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._num_bytes)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self._num_bytes += len(text)
        for line in text.splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue


def read(path: Path, *ops: str) -> list[Record]:
    """Read a history once, as `Reader.read` does."""
    return Reader(path).read(*ops)


def _is_torn(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return False
        file.seek(size - 1)
        return file.read(1) != b"\n"
