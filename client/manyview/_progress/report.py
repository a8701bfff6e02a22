"""The progress of a call, as its caller wants it: a line on a terminal or in a notebook, or calls of a function.

`progress` is None (a line on a terminal or in a notebook), True (a line), False (nothing), or a function that gets
(done, total), where a total that is not known is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from manyview._progress.display import stream_for
from manyview._progress.status_line import StatusLine

ProgressOption = bool | Callable[[int, int | None], None] | None


class Report:
    """Takes the progress of the parts of a call. Threads can share it."""

    def __init__(
        self, line: StatusLine | None = None, callback: Callable[[int, int | None], None] | None = None
    ) -> None:
        self._line = line
        self._callback = callback
        self._text = ""
        self._done = 0
        self._total: int | None = None

    @property
    def is_read(self) -> bool:
        """Is there a line or a function that gets what is reported?"""
        return self._line is not None or self._callback is not None

    def say(self, text: str) -> None:
        """Say what is being done, if there is nothing to count. Functions of callers do not hear of it."""
        self._text = text
        if self._line is not None:
            self._line.show(text)

    def begin(self, text: str, total: int | None, *, are_bytes: bool = False) -> None:
        """Say what is being done, and count images or bytes from 0. `total` is None if it is not known."""
        self._text, self._done, self._total = text, 0, total
        if self._line is not None:
            self._line.are_bytes = are_bytes
            self._line.noun = "" if are_bytes else "image"
            self._line.show(text, 0, total or 0)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Remove the line while the block prints something."""
        with self._line.hidden() if self._line is not None else nullcontext():
            yield

    def proceed(self, text: str) -> None:
        """Say what is being done now, without starting a new count."""
        self._text = text
        if self._line is not None:
            self._line.show(text, self._done, self._total or 0)

    def advance(self, count: int) -> None:
        """Add to the work that is done since `begin`."""
        self.count(self._done + count, self._total)

    def count(self, done: int, total: int | None, text: str | None = None) -> None:
        """Set how much is done, and of how much. `text` replaces what is being done."""
        self._text = self._text if text is None else text
        self._done, self._total = done, total
        if self._line is not None:
            self._line.show(self._text, done, total or 0)
        if self._callback is not None:
            self._callback(done, total)


@contextmanager
def reporting(progress: ProgressOption, title: str, text: str = "") -> Iterator[Report]:
    """Yield a report, which shows `title` and what is being done while the block runs."""
    stream = None if callable(progress) else stream_for(progress)
    if callable(progress):
        yield Report(callback=progress)
    elif stream is None:
        yield Report()
    else:
        with StatusLine(stream, title, text) as line:
            yield Report(line)


SILENT = Report()
"""A report that nobody reads."""
