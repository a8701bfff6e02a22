"""The clients of a scenario, each a process of its own that writes what it sees into its history and may be killed at
any moment: started again with the same history, it goes on.

    python actors.py uploader   ADDRESS HISTORY DATASET FOLDER [PAUSE_S]    PAUSE_S after each batch
    python actors.py subscriber ADDRESS HISTORY JOB
    python actors.py caller     ADDRESS HISTORY JOB FOLDER                  embeds until its stdin ends
"""

from __future__ import annotations

import faulthandler
import hashlib
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import manyview
from support.faults.history import History, Reader, Record, read
from support.service.harness import wait_until

START_TIMEOUT_S = 60.0
TESTS = Path(__file__).parents[2]
BATCH_IMAGES = 8


class Actor:
    """One client's process, and its history over all its lives."""

    def __init__(self, role: str, name: str, address: str, folder: Path, *arguments: str) -> None:
        """`folder` holds the histories and what the processes print."""
        self.role = role
        self.name = name
        self._history = Reader(folder / f"{name}.jsonl")
        self._log = folder / f"{name}.log"
        self._command = [
            sys.executable,
            "-m",
            "support.clients.actors",
            role,
            address,
            str(folder / f"{name}.jsonl"),
            *arguments,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def history(self, *ops: str) -> list[Record]:
        """Everything that it has seen so far, over all its lives. `ops` selects some operations."""
        return self._history.read(*ops)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Actor:
        """Start it, or start it again."""
        assert not self.alive
        self._close()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stderr=log, cwd=TESTS)
        return self

    def kill(self) -> bool:
        """SIGKILL; whether it was alive still."""
        if self._process is None or self._process.poll() is not None:
            return False
        self._process.kill()
        self._process.wait()
        return True

    def suspend(self, seconds: float) -> None:
        """Stop it with SIGSTOP for a while."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._process.send_signal(signal.SIGCONT)

    def finish(self, timeout_s: float) -> None:
        """End its stdin and wait until it is done. Fails with what it printed where it did not end well, and with
        where its threads are where it does not end."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)
            self._process.wait()
            raise AssertionError(f"{self.name} was not done within {timeout_s:g} s\n{self.printed}") from None
        assert status == 0, f"{self.name} ended with status {status}\n{self.printed}"

    @property
    def printed(self) -> str:
        """The last of what it wrote to stderr."""
        return self._log.read_text()[-3000:] if self._log.exists() else ""

    def close(self) -> None:
        """Kill it if it still runs."""
        self.kill()
        self._close()

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


def upload(client: manyview.Client, history: History, dataset: str, folder: str, pause_s: str = "0") -> None:
    """Every image of a folder, each logged when its acknowledgement is here."""
    # The order in which the SDK sends them; the first `done` of them are acknowledged.
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    logged = 0

    def progress(done: int, _: int | None) -> None:
        nonlocal logged
        for path in paths[logged:done]:
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            history.log("acked", dataset=dataset, key=path.relative_to(folder).as_posix(), sha256=sha256)
        # The SDK pulls and sends up to 64 images while this thread sleeps: so the pause is for each batch of 8. What an
        # earlier run sent is passed over at once, and costs one long pause.
        time.sleep(float(pause_s) * min(done - logged, 64) / 8)
        logged = done

    report = client.upload(folder, dataset=dataset, progress=progress).upload
    assert report is not None
    history.log("finished", dataset=dataset, num_sent=report.num_sent, num_stored=report.num_stored)


def subscribe(client: manyview.Client, history: History, path: Path, job: str) -> None:
    """A job's events from the last one in the history to the job's end."""
    seen = [record["sequence"] for record in read(path, "event")]
    for event in client.job(job).metrics(after=max(seen, default=0)):
        history.log_event(job, event)
    history.log("ended", job=job)


def _set_at_end_of_input(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def embed(client: manyview.Client, history: History, job: str, folder: str) -> None:
    """The same few images again and again, with the job's newest checkpoint, until stdin ends."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())[:BATCH_IMAGES]
    stop = threading.Event()
    threading.Thread(target=_set_at_end_of_input, args=(stop,), daemon=True).start()
    while not stop.is_set():
        try:
            found = client.embed(paths, model=job)
        except (
            manyview.Unavailable,
            manyview.DeadlineExceeded,
            manyview.NotFound,
            manyview.ResourceExhausted,
        ) as error:
            # No checkpoint yet, or nobody there.
            history.log("failed", reason=getattr(error, "reason", ""))
        else:
            history.log("embedded", rows=len(found), refused=len(found.errors), checkpoint=found.checkpoint)
        stop.wait(0.2)


def main(role: str, address: str, path: str, *arguments: str) -> None:
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    history = History(Path(path))
    deadlines = manyview.Deadlines(unary_s=20, embed_s=20, idle_s=30, reconnect_s=120)
    with manyview.Client(address, deadlines=deadlines) as client:
        roles: dict[str, Callable[[], None]] = {
            "uploader": lambda: upload(client, history, *arguments),
            "subscriber": lambda: subscribe(client, history, Path(path), *arguments),
            "caller": lambda: embed(client, history, *arguments),
        }
        wait_until(lambda: _is_there(client), "the server answers", START_TIMEOUT_S)
        roles[role]()


def _is_there(client: manyview.Client) -> bool:
    """A new client gives up soon on a server that never answered it; these may be started while it is down."""
    try:
        return client.health() == "SERVING"
    except manyview.Unavailable:
        return False


if __name__ == "__main__":
    main(*sys.argv[1:])
