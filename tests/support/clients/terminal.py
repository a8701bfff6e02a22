"""A terminal of a given size, and everything that was ever shown on it."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
import threading
import time
from collections.abc import Collection
from typing import TextIO

PATIENCE_S = 20.0


class Terminal:
    """A pseudo-terminal. A program writes to `stream` and reads from `keyboard`. `shown` is all it wrote so far."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.keyboard: TextIO = open(os.dup(slave))  # noqa: SIM115  (`close` closes them)
        self.stream: TextIO = open(slave, "w", buffering=1)  # noqa: SIM115
        self._received = bytearray()
        self._grown = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="terminal", daemon=True)
        self._thread.start()

    @property
    def shown(self) -> str:
        with self._grown:
            return self._received.decode(errors="replace")

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def wait_for(self, *texts: str) -> None:
        """Wait until each of these texts was shown. Raises AssertionError after PATIENCE_S."""
        deadline = time.monotonic() + PATIENCE_S
        with self._grown:
            while missing := [text for text in texts if text not in self._received.decode(errors="replace")]:
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"{missing} not shown, but {self._received.decode(errors='replace')!r}"
                self._grown.wait(min(left_s, 0.2))

    def wait_for_one(self, texts: Collection[str], times: int) -> str:
        """Wait until one of these texts is shown so many times from now on, and return it."""
        deadline = time.monotonic() + PATIENCE_S
        with self._grown:
            begin = len(self._received)
            while True:
                shown = self._received[begin:].decode(errors="replace")
                for text in texts:
                    if shown.count(text) >= times:
                        return text
                assert time.monotonic() < deadline, f"none of {texts} is shown, but {shown!r}"
                self._grown.wait(0.2)

    def close(self) -> None:
        self.stream.close()
        self.keyboard.close()
        self._thread.join(5)
        os.close(self._master)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the other side is closed
                return
            with self._grown:
                self._received += data
                self._grown.notify_all()
