"""The longest callback of servers' event loops, read from the logs that the servers leave behind, killed ones too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

LONGEST = "longest_callback"
"""The property of a test that holds the milliseconds and the name of its servers' longest callback."""
LINE = re.compile(rb"longest callback of the event loop: ([0-9]+) ms [^\"]*? in ([^\"]+)")


class LoopTimes:
    """Reads what was added to logs since the last look."""

    def __init__(self) -> None:
        self._read: dict[Path, int] = {}
        self._longest: dict[Path, int] = {}

    def longest(self, logs: Sequence[Path]) -> tuple[int, str]:
        """Return milliseconds and name of the longest callback since the last look, or (0, "").

        A server repeats its longest callback when it ends, which is no news.
        """
        found = (0, "")
        for log in filter(Path.exists, logs):
            with log.open("rb") as file:
                file.seek(self._read.get(log, 0))
                text = file.read()
                self._read[log] = file.tell()
            for ms, name in LINE.findall(text):
                if int(ms) > self._longest.get(log, 0):
                    self._longest[log] = int(ms)
                    found = max(found, (int(ms), name.decode()))
        return found
