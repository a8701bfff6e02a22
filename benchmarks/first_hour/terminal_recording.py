"""A program on a pseudo-terminal, and when it wrote what."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

COLUMNS, ROWS = 80, 24
LOOK_S = 0.02


class TerminalRecording:
    """A program that runs on a terminal of 80 x 24. All times are seconds since its start."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path | None = None) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
        os.close(slave)
        self._outputs: list[float] = []
        self._received = bytearray()
        self._ended_s = 0.0
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    @property
    def now_s(self) -> float:
        """The time, or the end of the program."""
        return self._ended_s or time.monotonic() - self._began

    @property
    def text(self) -> str:
        """Everything that the program has written."""
        return self._received.decode(errors="replace")

    def wait(self, timeout_s: float) -> int:
        """Return the exit status. Raises TimeoutExpired, and kills the program then."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        self._ended_s = self._ended_s or time.monotonic() - self._began
        self._reading.join(5)
        return status

    def wait_for(self, found: Callable[[str], bool], timeout_s: float) -> float:
        """Return the time at which `found` is true of the text. Raises RuntimeError if the program ends before."""
        deadline = time.monotonic() + timeout_s
        while not found(self.text):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"not shown: {self.text[-2000:]}")
            time.sleep(LOOK_S)
        return self.now_s

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGINT)

    def longest_silence_s(self, from_s: float, until_s: float) -> float:
        """Return the longest time without output between two moments."""
        moments = [from_s, *(moment for moment in self._outputs if from_s < moment < until_s), until_s]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the program has ended
                os.close(self._master)
                return
            self._outputs.append(time.monotonic() - self._began)
            self._received += data
