"""Notes of what each thread of a worker is working on, in memory that the worker shares with the front.

A hostile image can kill a decoder or hold it for minutes. A decoder cannot be interrupted from within its process, and
a dead process cannot report what killed it. The worker's threads therefore note each decode and each pass of a network
in shared memory. The front reads the notes while the worker lives, and after its death.

Layout: `SLOTS` records of five native uint64: kind (0 for an empty slot), the thread's system-wide id, the CPU time
that the thread had used at the start (ns), and two numbers that name the work.
"""

from __future__ import annotations

import mmap
import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

DECODE = 1
ALONE = 2
"""A decode during which no other image is decoded."""
FORWARD = 3
"""A pass of a network over images of one or more requests."""
MODEL = 4
"""The search for a request's model, which may have to be loaded."""

TOO_SLOW = "DECODE_TOO_SLOW"
CRASHED = "DECODER_CRASHED"
OUT_OF_MEMORY = "DECODE_OUT_OF_MEMORY"
"""This is no verdict on an image: where there is more memory, it may decode."""
QUARANTINE = {
    CRASHED: "it kills the decoder",
    TOO_SLOW: "decoding it takes more CPU time than the server allows",
}
"""The reasons for which no worker decodes an image again, each with its text."""

SLOTS = 1024
"""The most tasks that are noted at one time; further tasks are not noted."""
WORDS = 5
WORD_BYTES = 8
SIZE_BYTES = SLOTS * WORDS * WORD_BYTES
MAX_READS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A task that a thread is working on. The worker and its supervisor define what `request` and `item` mean."""

    kind: int
    thread: int
    start_ns: int
    request: int
    item: int

    @property
    def is_decode(self) -> bool:
        """Is an image being decoded?"""
        return self.kind in (DECODE, ALONE)


class DecodeNotes:
    """The notes of one worker, for both sides. The worker's threads may share one object."""

    def __init__(self, descriptor: int) -> None:
        """Map the memory of `descriptor`. The descriptor stays open, and the caller still owns it."""
        self._shared = mmap.mmap(descriptor, SIZE_BYTES)
        self._words = memoryview(self._shared).cast("Q")
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(SLOTS):
            self._free.put(slot)

    @classmethod
    def private(cls) -> DecodeNotes:
        """Return notes that no other process reads."""
        descriptor = allocate()
        try:
            return cls(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def task(self, kind: int, *, request: int = 0, item: int = 0) -> Iterator[None]:
        """Note that this thread is working on the task while the block runs."""
        try:
            slot = self._free.get_nowait()
        except queue.Empty:
            yield
            return
        at = slot * WORDS
        words = (threading.get_native_id(), time.thread_time_ns(), request, item)
        for place, word in enumerate(words, at + 1):
            self._words[place] = word
        self._words[at] = kind
        try:
            yield
        finally:
            self._words[at] = 0
            self._free.put(slot)

    def read(self) -> tuple[Note, ...]:
        """Return the tasks that threads are working on, or were working on when the worker died."""
        found = (self._read(slot) for slot in range(SLOTS) if self._words[slot * WORDS])
        return tuple(note for note in found if note)

    def detach(self) -> None:
        """Keep what the notes say, and release the shared memory. Call it when the worker has ended."""
        kept = memoryview(bytes(self._words)).cast("Q")
        self._words.release()
        self._shared.close()
        self._words = kept

    def _read(self, slot: int) -> Note | None:
        """Return what a slot holds, or None if it is empty or changes faster than it can be read."""
        record = self._words[slot * WORDS : (slot + 1) * WORDS]
        before = record.tolist()
        for _ in range(MAX_READS):
            again = record.tolist()
            if again == before:
                kind, thread, start_ns, request, item = again
                return Note(kind=kind, thread=thread, start_ns=start_ns, request=request, item=item) if kind else None
            before = again
        return None


def allocate() -> int:
    """Return the descriptor of fresh shared memory for the notes, all empty. Raises OSError."""
    descriptor = os.memfd_create("decode-notes")
    try:
        # Allocate its pages now: later, a write to a page that cannot be had would be a signal instead of an error.
        os.posix_fallocate(descriptor, 0, SIZE_BYTES)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
