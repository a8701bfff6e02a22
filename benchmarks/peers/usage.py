"""The CPU seconds of a process with all its descendants, and of the whole machine."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def machine_cpu_s() -> float:
    """Return the CPU seconds that everything on the machine has used since its start, without idle and waiting time."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:8])
    return (user + nice + system + sum(interrupts)) / TICKS_PER_S


def await_quiet(limit_s: float, cores: float = 0.3) -> None:
    """Wait for a second in which the machine uses at most so many cores, or until the time is over."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        began, used_s = time.monotonic(), machine_cpu_s()
        time.sleep(1)
        if machine_cpu_s() - used_s <= cores * (time.monotonic() - began):
            return


def tree_cpu_s(root: int) -> float:
    """Return the CPU seconds of a process and its descendants. Those of dead ones count if their parent reaped them."""
    used: dict[int, float] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(entry)):
            used[int(entry.name)] = sum(map(int, stat[11:15])) / TICKS_PER_S
            children[int(stat[1])].append(int(entry.name))
    return _sum(root, used, children)


def _stat(process: Path) -> list[str]:
    """Return the fields of a process after its name, or none if it has ended."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _sum(root: int, used: dict[int, float], children: dict[int, list[int]]) -> float:
    return used.get(root, 0.0) + sum(_sum(child, used, children) for child in children[root])
