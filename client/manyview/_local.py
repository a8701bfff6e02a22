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
from collections.abc import Mapping
from os import PathLike
from typing import Any

from manyview._arguments import positive_s
from manyview._client import Client
from manyview._errors import ManyviewError, Unavailable
from manyview._log_tail import LogTail
from manyview._transport.deadline import Deadline, take

_STOP_S = 30.0
_LOG_LINES = 15


def local(
    data_dir: str | PathLike[str] | None = None,
    *,
    start_timeout_s: float = 120.0,
    env: Mapping[str, str] | None = None,
    **client_options: Any,
) -> Client:
    """Start a server and return a client of it. Leaving the client's `with` block stops the server.

    All data is kept in `data_dir`, or in a temporary folder that is deleted at the end. `env` is the environment of the
    server (by default, that of this process). `client_options` go to `Client`. Raises Unavailable LOCAL_SERVER_FAILED
    with the last lines of the server's log if it does not start, for example because it is not installed:
    `pip install "manyview[server]"`.
    """
    if data_dir is not None and not os.fspath(data_dir):
        raise ValueError("data_dir must name a folder; None takes a temporary one")
    positive_s("start_timeout_s", start_timeout_s)
    server = LocalServer.start(data_dir, timeout_s=start_timeout_s, env=env)
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
        self, process: subprocess.Popen[bytes], log: LogTail, temporary: tempfile.TemporaryDirectory[str] | None
    ) -> None:
        self.address = ""
        self._process = process
        self._log = log
        self._temporary = temporary

    @classmethod
    def start(
        cls, data_dir: str | PathLike[str] | None, *, timeout_s: float, env: Mapping[str, str] | None
    ) -> LocalServer:
        """Start a server and wait until it serves. Raises Unavailable LOCAL_SERVER_FAILED."""
        temporary = tempfile.TemporaryDirectory(prefix="manyview-") if data_dir is None else None
        folder = temporary.name if temporary else os.fspath(data_dir or "")
        log = LogTail()
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
            server.address = server._await_address(timeout_s)
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

    def _await_address(self, timeout_s: float) -> str:
        """Return the address from the one line that the server prints."""
        lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        output = self._process.stdout
        assert output is not None
        threading.Thread(target=lambda: lines.put(output.readline()), name="manyview-local", daemon=True).start()
        deadline = Deadline(timeout_s)
        try:
            line = take(lines, timeout_s)
            self._wait_serving(address := str(json.loads(line)["address"]), deadline)
        except queue.Empty:
            raise self._failure(f"did not start within {timeout_s:g} s") from None
        except (ValueError, KeyError):
            self._reap()
            raise self._failure(f"ended with exit status {self._process.poll()} before it served") from None
        return address

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
        missing = any("No module named" in line for line in last)
        hint = '\nIs the server installed? pip install "manyview[server]"' if missing else ""
        log = "\n".join(["the last lines of its log:", *last]) if last else "its log is empty"
        return Unavailable(f"the local server {what}; {log}{hint}", reason="LOCAL_SERVER_FAILED")
