"""The end of what a worker prints."""

from __future__ import annotations

import asyncio
import os


class WorkerOutput:
    """The last `limit_bytes` that a process prints, read from a pipe as they come."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._data = bytearray()
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        self._open = {self._read_fd, self.write_fd}

    @property
    def text(self) -> str:
        """The end of what was printed."""
        return self._data.decode(errors="replace")

    def attach(self) -> None:
        """Close our copy of the process's end, and read from now on."""
        self._close(self.write_fd)
        asyncio.get_running_loop().add_reader(self._read_fd, self._read)

    def drain(self) -> None:
        """Read what is left in the pipe. A child that escaped the group may hold it open: do not wait for its end."""
        while self._read_fd in self._open and self._read():
            pass

    def close(self) -> None:
        """Close the pipe."""
        self._close(self.write_fd)
        self._close(self._read_fd)

    def _read(self) -> bool:
        try:
            chunk = os.read(self._read_fd, 64 << 10)
        except BlockingIOError:
            return False
        if not chunk:
            self._close(self._read_fd)
            return False
        self._data += chunk
        del self._data[: -self._limit_bytes]
        return True

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.remove(fd)
            if fd == self._read_fd:
                asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)
