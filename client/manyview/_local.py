"""A private server as a child process. It listens on a loopback port of its own and dies with this process."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from manyview._arguments import positive_s
from manyview._client import Client
from manyview._errors import ManyviewError, Unavailable
from manyview._progress.report import SILENT, Report, reporting
from manyview._stderr_tail import StderrTail
from manyview._transport.deadline import Deadline, take

_STOP_S = 30.0
_LOG_LINES = 15
_LOOK_S = 0.2
"""The time between two looks at what a starting server says that it does."""
_STARTING = "starting: "
_CANNOT_START = "cannot start: "
_PROGRAM_ERROR = "manyview-server: error: "


def local(
    data_dir: str | PathLike[str] | None = None,
    *,
    start_timeout_s: float = 120.0,
    env: Mapping[str, str] | None = None,
    progress: bool | None = None,
    **client_options: Any,
) -> Client:
    """Start a server and return a client of it. Leaving the client's `with` block stops the server.

    All data is kept in `data_dir`, or in a temporary folder that is deleted at the end. `env` is the environment of the
    server (by default, that of this process). `progress` True or False shows what the server does while it starts, or
    nothing; None shows it on a terminal and in a notebook. `client_options` go to `Client`. Raises Unavailable
    LOCAL_SERVER_FAILED with the server's reason, or with the last lines of its log, if it does not start, for example
    because it is not installed: `pip install "manyview[server]"`.
    """
    if data_dir is not None and not os.fspath(data_dir):
        raise ValueError("data_dir must name a folder; None takes a temporary one")
    positive_s("start_timeout_s", start_timeout_s)
    with reporting(progress, "private server", "starting") as report:
        server = LocalServer.start(data_dir, timeout_s=start_timeout_s, env=env, report=report)
    try:
        return _LocalClient(server, **client_options)
    except BaseException:
        server.stop()
        raise


class _LocalClient(Client):
    """A client that stops its server when it is closed."""

    def __init__(self, server: LocalServer, **options: Any) -> None:
        super().__init__(server.address, **options)
        self._server = server

    def close(self) -> None:
        super().close()
        self._server.stop()


class LocalServer:
    """The child process. It drains and exits when this process has ended, for whatever reason. It runs in a session of
    its own, so that Ctrl-C does not reach it before its client has finished."""

    def __init__(
        self, process: subprocess.Popen[bytes], log: StderrTail, temporary: tempfile.TemporaryDirectory[str] | None
    ) -> None:
        self.address = ""
        self._process = process
        self._log = log
        self._temporary = temporary

    @classmethod
    def start(
        cls,
        data_dir: str | PathLike[str] | None,
        *,
        timeout_s: float,
        env: Mapping[str, str] | None,
        report: Report = SILENT,
    ) -> LocalServer:
        """Start a server and wait until it serves. Raises Unavailable LOCAL_SERVER_FAILED."""
        temporary = tempfile.TemporaryDirectory(prefix="manyview-") if data_dir is None else None
        folder = temporary.name if temporary else os.fspath(data_dir or "")
        log = StderrTail()
        command = [sys.executable, "-m", "manyview_server", "serve", "--listen", "127.0.0.1:0", "--data", folder]
        process = subprocess.Popen(
            [*command, "--exit-with-parent"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log.fileno(),
            env=None if env is None else dict(env),
            start_new_session=True,
        )
        server = cls(process, log, temporary)
        try:
            server.address = server._await_address(timeout_s, report)
        except BaseException:
            server.stop()
            raise
        return server

    def stop(self) -> None:
        """End the server, and delete its data if they are temporary. A second call does nothing."""
        process = self._process
        process.terminate()  # the server drains: running jobs write a checkpoint
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self._log.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _await_address(self, timeout_s: float, report: Report) -> str:
        """Return the address from the one line that the server prints. Its log says what it does before that."""
        lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        output = self._process.stdout
        assert output is not None
        threading.Thread(target=lambda: lines.put(output.readline()), name="manyview-local", daemon=True).start()
        deadline = Deadline(timeout_s)
        try:
            line = self._take(lines, deadline, report)
            self._wait_serving(address := str(json.loads(line)["address"]), deadline)
        except queue.Empty:
            raise self._failure(f"did not start within {timeout_s:g} s") from None
        except (ValueError, KeyError):
            self._reap()
            raise self._failure(f"ended with exit status {self._process.poll()} before it served") from None
        return address

    def _take(self, lines: queue.SimpleQueue[bytes], deadline: Deadline, report: Report) -> bytes:
        """Return the line, and report the steps of the start until it comes. Raises queue.Empty."""
        while True:
            left_s = deadline.left_s() or 0.0
            try:
                return take(lines, min(left_s, _LOOK_S))
            except queue.Empty:
                if left_s <= _LOOK_S:
                    raise
            if step := start_step(self._log.last_lines(_LOG_LINES)):
                report.say(step)

    def _wait_serving(self, address: str, deadline: Deadline) -> None:
        with Client(address, timeout_s=max(1.0, deadline.left_s() or 0.0)) as client:
            while True:
                try:
                    if client.health() == "SERVING":
                        return
                except ManyviewError:
                    if self._process.poll() is not None:
                        raise self._failure("ended before it served") from None
                if deadline.left_s() == 0:
                    raise self._failure("did not become healthy")
                time.sleep(0.05)

    def _reap(self) -> None:
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            return

    def _failure(self, what: str) -> Unavailable:
        last = self._log.last_lines(_LOG_LINES)
        if reason := refusal(last):
            return Unavailable(f"the local server cannot start: {reason}", reason="LOCAL_SERVER_FAILED")
        missing = any("No module named" in line for line in last)
        hint = '\nIs the server installed? pip install "manyview[server]"' if missing else ""
        log = "\n".join(["the last lines of its log:", *last]) if last else "its log is empty"
        return Unavailable(f"the local server {what}; {log}{hint}", reason="LOCAL_SERVER_FAILED")


def start_step(log: Sequence[str]) -> str:
    """Return what a starting server does, by the newest line of its log that says so, or ""."""
    return _after(_STARTING, log)


def refusal(log: Sequence[str]) -> str:
    """Return why a server refused to start, in its own words, or ""."""
    texts = (line.removeprefix(_PROGRAM_ERROR) for line in reversed(log) if line.startswith(_PROGRAM_ERROR))
    return next(texts, "") or _after(_CANNOT_START, log)


def _after(prefix: str, log: Sequence[str]) -> str:
    """Return the rest of the newest message that begins with a prefix."""
    for line in reversed(log):
        try:
            message = str(json.loads(line)["message"])
        except (ValueError, KeyError, TypeError):
            continue
        if message.startswith(prefix):
            return message.removeprefix(prefix)
    return ""
