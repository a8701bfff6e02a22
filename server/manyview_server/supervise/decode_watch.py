"""Find the decode or task of a worker that takes too long, from outside of the process.

A decode is judged by the CPU time of its thread. A machine that sleeps, swaps or is overloaded therefore condemns no
innocent image, and a decoder that never releases the interpreter lock is noticed all the same.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from manyview_server.link.decode_notes import DecodeNotes, Note
from manyview_server.system import awake_time

LOOK_S = 0.5
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowDecode:
    """A decode over the limit, and the CPU seconds that it has taken so far."""

    note: Note
    cpu_s: float


class DecodeWatch:
    """Looks at the notes of the worker `pid`."""

    def __init__(
        self, pid: int, notes: DecodeNotes, limit_s: float, *, cpu_s: Callable[[int, int], float] | None = None
    ) -> None:
        self._pid = pid
        self._notes = notes
        self._limit_s = limit_s
        self._cpu_s = cpu_s or thread_cpu_s

    def look(self) -> tuple[SlowDecode, ...]:
        """Return the decodes that are over the limit now."""
        return tuple(found for note in self._notes.read() if note.is_decode and (found := self._measure(note)))

    async def wait(self) -> tuple[SlowDecode, ...]:
        """Look repeatedly, and return the first decodes that are over the limit."""
        while not (slow := self.look()):
            await asyncio.sleep(LOOK_S)
        return slow

    def _measure(self, note: Note) -> SlowDecode | None:
        try:
            taken_s = self._cpu_s(self._pid, note.thread) - note.start_ns / NS_PER_S
        except (OSError, ValueError, IndexError):  # the thread has ended
            return None
        # The thread may work on another image since the notes were read. Then the time is not the time of this image.
        if taken_s <= self._limit_s or note not in self._notes.read():
            return None
        return SlowDecode(note=note, cpu_s=taken_s)


class TaskWatch:
    """Notices a task that takes longer than `limit_s` of the time for which this process was awake."""

    def __init__(self, notes: DecodeNotes, limit_s: float) -> None:
        self._notes = notes
        self._limit_s = limit_s
        self._since: dict[Note, float] = {}
        self.last_change = awake_time.now()
        """The last time at which a change of the tasks was seen."""

    def look(self) -> tuple[Note, ...]:
        """Return the tasks that take too long."""
        now = awake_time.now()
        tasks = self._notes.read()
        if set(tasks) != self._since.keys():
            self.last_change = now
        self._since = {note: self._since.get(note, now) for note in tasks}
        return tuple(note for note, since in self._since.items() if now - since > self._limit_s)


def thread_cpu_s(pid: int, thread: int) -> float:
    """Return the CPU seconds of another process's thread. Raises OSError if the thread has ended."""
    fields = Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
