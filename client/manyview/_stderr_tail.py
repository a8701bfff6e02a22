"""The end of what a child process writes, in a file of bounded size.

It is a file because a pipe that nobody reads stops its writer: a suspended parent would stop its server.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading

KEPT_BYTES = 64 * 1024
MAX_BYTES = 1024 * 1024
_EVERY_S = 5.0


class StderrTail:
    """An unlinked temporary file for a child's stderr. When it exceeds 1 MB, a thread cuts it to its last 64 kB."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (`close` closes it)
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        # The child shares this flag: each write goes to the end of the file, also after a cut.
        fcntl.fcntl(self._file, fcntl.F_SETFL, flags | os.O_APPEND)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep_short, name="manyview-log", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """Return the descriptor to hand to the child."""
        return self._file.fileno()

    @property
    def num_bytes(self) -> int:
        return os.fstat(self.fileno()).st_size

    def cut(self) -> None:
        """Keep the last 64 kB. What the child writes during the cut may be lost."""
        kept = self._read()
        os.ftruncate(self.fileno(), 0)
        os.write(self.fileno(), kept)

    def last_lines(self, count: int) -> list[str]:
        """Return the last `count` lines, or fewer if these have more than 64 kB together."""
        return self._read().decode("utf-8", "replace").strip().splitlines()[-count:]

    def close(self) -> None:
        """Close and forget the file. A second call does nothing."""
        self._closed.set()
        self._thread.join()
        self._file.close()

    def _read(self) -> bytes:
        return os.pread(self.fileno(), KEPT_BYTES, max(0, self.num_bytes - KEPT_BYTES))

    def _keep_short(self) -> None:
        while not self._closed.wait(_EVERY_S):
            if self.num_bytes > MAX_BYTES:
                self.cut()
