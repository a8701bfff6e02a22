"""One line that says what is being done. It is redrawn several times a second, so it moves while its caller waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar, TextIO

from manyview._progress import words
from manyview._progress.display import is_terminal, width_of

REDRAW_S = 0.2


class StatusLine:
    """A line on `stream` while its `with` block runs: "TITLE: sending 640 of 3,068 ━━━━──── about 12 s left".

    The line is drawn with carriage returns alone, which terminals and notebooks both understand. After a block without
    an error, the last count stays on the screen with the seconds that it took. A line inside of another one hides that
    until it ends. If `are_bytes`, the counts are shown in MB. `noun` is what the last count counts.
    """

    _shown: ClassVar[list[StatusLine]] = []
    """The lines whose blocks run. The last one is drawn."""

    def __init__(
        self, stream: TextIO, title: str, text: str = "", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._title = title
        self._clock = clock
        self._text = text
        self._done = self._total = self._done_before = 0
        self.are_bytes = False
        self.noun = ""
        self._began = self._text_began = clock()
        self._drawn = ""
        self._is_terminal = is_terminal(stream)
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._redraw, name="manyview-progress", daemon=True)

    def __enter__(self) -> StatusLine:
        for outer in self._shown[-1:]:
            outer._write("")
        self._shown.append(self)
        self._draw()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._closed.set()
        self._thread.join()
        self._write(self._summary() if kind is None and self._done else "")
        self._shown.remove(self)

    def show(self, text: str, done: int = 0, total: int = 0) -> None:
        """Say what is being done. A new `text` starts a new count, and new seconds."""
        with self._lock:
            if text != self._text:
                self._text, self._text_began, self._done_before = text, self._clock(), done
                self._done, self._total = done, total
                self._draw()
            self._done, self._total = done, total

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Remove the line while the block prints something."""
        with self._lock:
            self._write("")
            yield
            self._draw()

    def _line(self) -> str:
        """Return the line, without its bar or cut at its end if the terminal is too narrow."""
        text = f"{self._title}: {self._text}" if self._text else self._title
        elapsed_s = self._clock() - self._text_began
        if not self._done and not self._total:
            line = short = f"{text}, {words.duration(elapsed_s)}"
        elif not self._total:
            line = short = f"{text} {self._counted(0)}, {words.duration(elapsed_s)}"
        else:
            before = self._done_before
            left = words.remaining(self._done - before, self._total - before, elapsed_s)
            short = f"{text} {self._counted(self._total)}"
            line = f"{short} {words.bar(self._done, self._total)} {left}".rstrip()
        columns = width_of(self._stream) - 1
        return (line if len(line) <= columns else short)[:columns]

    def _counted(self, total: int) -> str:
        return words.counted(self._done, total, are_bytes=self.are_bytes)

    def _summary(self) -> str:
        counted = words.number_of(self._done, self.noun) if self.noun else self._counted(0)
        return f"{self._title}: {counted} in {words.duration(self._clock() - self._began, decimals=1)}\n"

    def _draw(self) -> None:
        with self._lock:
            if self._shown[-1:] == [self]:
                self._write(self._line())

    def _write(self, text: str) -> None:
        """Replace the line. A stream that was closed, or whose reader has gone, is no reason to fail."""
        if text == self._drawn and not self._is_terminal:  # a notebook keeps all that was ever written
            return
        with self._lock, suppress(OSError, ValueError):
            self._stream.write(_over(text, len(self._drawn)))
            self._stream.flush()
            self._drawn = "" if text.endswith("\n") else text

    def _redraw(self) -> None:
        while not self._closed.wait(REDRAW_S):
            self._draw()


def _over(text: str, num_drawn: int) -> str:
    """Return what replaces a line of `num_drawn` characters by `text`."""
    body, newline = (text[:-1], "\n") if text.endswith("\n") else (text, "" if text else "\r")
    return "\r" + body.ljust(num_drawn) + newline
