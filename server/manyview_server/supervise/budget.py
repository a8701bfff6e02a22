"""Who may use how many cores and how much memory: two torch processes that each take everything ruin each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
# Of a device's memory: the rest is for the networks, their gradients and the embedder.
CACHE_FRACTION = 1 / 3


class CoreBudget:
    """Threads for trainers and the embedder. A trainer takes every core, the embedder half of them beside it."""

    def __init__(self, num_cores: int) -> None:
        if num_cores < 1:
            raise ValueError(f"num_cores must be at least 1, got {num_cores}")
        self.num_cores = num_cores
        self.num_trainers = 0
        self._listeners: list[Callable[[], None]] = []

    @property
    def trainer_threads(self) -> int:
        """For one trainer."""
        return self.num_cores

    @property
    def embedder_threads(self) -> int:
        """For the embedder, as things are now."""
        return max(1, self.num_cores // 2) if self.num_trainers else self.num_cores

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever `embedder_threads` may have changed."""
        self._listeners.append(listener)

    def trainer_started(self) -> None:
        """A trainer takes its share."""
        self._count(+1)

    def trainer_ended(self) -> None:
        """A trainer has given its share back."""
        self._count(-1)

    def _count(self, change: int) -> None:
        self.num_trainers += change
        assert self.num_trainers >= 0
        for listener in self._listeners:
            listener()


def available_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use: its affinity, and the quota of its container."""
    cores = len(os.sched_getaffinity(0))
    quota, period = _numbers(cgroup / "cpu.max") or _version_1_quota(cgroup) or (0, 1)
    return max(1, min(cores, round(quota / period))) if quota > 0 else cores


def available_memory(cgroup: Path = CGROUP) -> int:
    """Bytes of memory that this machine has, or its container where that is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [_numbers(cgroup / name) for name in ("memory.max", "memory/memory.limit_in_bytes")]
    return min([machine, *(limit[0] for limit in limits if limit)])


def oom_kills(cgroup: Path = CGROUP, vmstat: Path = Path("/proc/vmstat")) -> int:
    """Processes that the kernel has killed for lack of memory, in this container and on this machine, each of which may
    be hidden from us: only that the number has risen says something."""
    files = (cgroup / "memory.events", cgroup / "memory" / "memory.oom_control", vmstat)
    return sum(_counter(file, "oom_kill") for file in files)


def cache_bytes(device_memory_bytes: int, device: str) -> int:
    """For a job's decoded images on a device of so much memory."""
    memory = min(device_memory_bytes, available_memory()) if device == "cpu" else device_memory_bytes
    return int(memory * CACHE_FRACTION)


def _version_1_quota(cgroup: Path) -> tuple[int, int] | None:
    quota, period = (_numbers(cgroup / "cpu" / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    return (quota[0], period[0]) if quota and period else None


def _counter(path: Path, name: str) -> int:
    """The value in a line "name value" of a file of the kernel; 0 where there is none."""
    try:
        pairs = (line.split() for line in path.read_text().splitlines())
        return next(int(pair[1]) for pair in pairs if pair[0] == name)
    except (OSError, ValueError, IndexError, StopIteration):
        return 0


def _numbers(path: Path) -> tuple[int, ...] | None:
    """The numbers in a file of the kernel; None where it is missing or says "max"."""
    try:
        return tuple(int(word) for word in path.read_text().split())
    except (OSError, ValueError):
        return None
