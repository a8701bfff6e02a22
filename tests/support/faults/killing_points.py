"""At which of a process's system calls it can be killed or failed: found out by watching it do the same once before."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

NEVER = "signal=KILL:when=60000"
"""A fault for `strace.injected` that does not come: to watch."""

CALL = re.compile(r"^(\d+) +(\w+)\(")


class Point(NamedTuple):
    """The `nth` time that a thread makes this call."""

    call: str
    nth: int


def points(log: Path, *needles: str) -> list[Point]:
    """Every call in a log of strace's whose line holds one of the `needles`, numbered as strace counts.

    That is by thread; the numbers are those of the thread that has the most of such lines. All its calls count, those
    on other files too.
    """
    lines = [(found[1], found[2], line) for line in log.read_text().splitlines() if (found := CALL.match(line))]
    wanted = Counter(thread for thread, _, line in lines if any(needle in line for needle in needles))
    if not wanted:
        return []
    ((busiest, _),) = wanted.most_common(1)
    seen: Counter[str] = Counter()
    found_points = []
    for thread, call, line in lines:
        if thread == busiest:
            seen[call] += 1
            if any(needle in line for needle in needles):
                found_points.append(Point(call, seen[call]))
    return found_points


def drawn(found: list[Point], seed: int, count: int) -> list[Point]:
    """`count` of them for this seed. Seeds that follow each other draw all, before any is drawn again."""
    shuffled = random.Random(0).sample(found, len(found))
    return [shuffled[(seed * count + number) % len(shuffled)] for number in range(count)]
