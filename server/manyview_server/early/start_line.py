"""The line that says what a starting server does.

On a terminal it is redrawn several times a second, with the seconds that the start has taken, and log lines appear
above it. Elsewhere each step is one line of the log.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TextIO

PREFIX = "starting: "
REDRAW_S = 0.25
ERASE = "\r\x1b[2K"

log = logging.getLogger(__name__)


class StartLine:
    """A stream for the log that keeps a status line below it. `show` sets the line, and `end` removes it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._began = time.monotonic()
        self._text = ""
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def show(self, text: str) -> None:
        """Say what the server does now."""
        if not self._is_terminal:
            log.info("%s%s", PREFIX, text)
            return
        with self._lock:
            self._text = text
            self._draw()
        if self._thread is None and not self._ended.is_set():
            self._thread = threading.Thread(target=self._redraw, name="start-line", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Remove the line for good. A second call does nothing."""
        self._ended.set()
        with self._lock:
            if self._text:
                self._stream.write(ERASE)
                self._stream.flush()
            self._text = ""

    def write(self, text: str) -> int:
        """Write to the stream, above the line."""
        with self._lock:
            return self._stream.write(ERASE + text if self._text else text)

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()

    def _draw(self) -> None:
        if self._text:
            self._stream.write(f"{ERASE}{PREFIX}{self._text}, {time.monotonic() - self._began:.0f} s")
            self._stream.flush()

    def _redraw(self) -> None:
        while not self._ended.wait(REDRAW_S):
            with self._lock:
                self._draw()
