"""The cores and the memory that each process may use. Two torch processes that each use all cores ruin each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from manyview_server.system.control_groups import ROOT, counter, groups, own_groups
from manyview_server.system.host_memory import IMAGES_FRACTION, host_memory

CACHE_FRACTION = 1 / 3
"""The share of a device's memory for decoded images. The rest is for the networks, their gradients and the embedder."""
QUEUE_FRACTION = 1 / 16
"""The share of the memory for images that wait to be embedded."""
MOST_QUEUE_BYTES = 256 << 20


class CoreBudget:
    """The threads of trainers and the embedder. Trainers share all cores, and the embedder uses half of them beside
    trainers."""

    def __init__(self, num_cores: int, num_devices: int = 1) -> None:
        """`num_devices`: each device runs one trainer at a time."""
        for name, value in (("num_cores", num_cores), ("num_devices", num_devices)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.num_cores = num_cores
        self.num_devices = num_devices
        self.num_trainers = 0
        self._listeners: list[Callable[[], None]] = []

    @property
    def trainer_threads(self) -> int:
        """The threads of one trainer. The number does not depend on other devices, because on a CPU it decides how sums
        are rounded."""
        return max(1, self.num_cores // self.num_devices)

    @property
    def embedder_threads(self) -> int:
        """The threads of the embedder at this time."""
        return max(1, self.num_cores // 2) if self.num_trainers else self.num_cores

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever `embedder_threads` may have changed."""
        self._listeners.append(listener)

    def trainer_started(self) -> None:
        """Count a trainer that takes its share."""
        self._count(+1)

    def trainer_ended(self) -> None:
        """Count a trainer that has given its share back."""
        self._count(-1)

    def _count(self, change: int) -> None:
        self.num_trainers += change
        assert self.num_trainers >= 0
        for listener in self._listeners:
            listener()


def available_cores(root: Path = ROOT) -> int:
    """Return how many cores this process may use: those of its affinity, or fewer where a control group has a quota."""
    cores = float(len(os.sched_getaffinity(0)))
    return max(1, round(min([cores, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the cores that each limited control group of this process may keep busy."""
    for group in groups("cpu", root):
        if group.version == 2:
            found = group.numbers("cpu.max")
        else:
            found = (*(group.numbers("cpu.cfs_quota_us") or ()), *(group.numbers("cpu.cfs_period_us") or ()))
        if found and len(found) == 2 and min(found) > 0:
            yield found[0] / found[1]


def oom_kills(root: Path = ROOT) -> int:
    """Return how many processes the kernel has killed for lack of memory, in this control group and on this machine.

    Either number may be hidden, and they overlap, so only a rise means something.
    """
    files = {1: "memory.oom_control", 2: "memory.events"}
    in_groups = (group.counter(files[group.version], "oom_kill") for group in own_groups("memory", root))
    return sum(in_groups) + counter(root / "proc/vmstat", "oom_kill")


def embed_queue_bytes(max_message_bytes: int) -> int:
    """Return how many bytes of encoded images may wait for the embedder: at least those of one message."""
    share = int(host_memory().limit_bytes * QUEUE_FRACTION)
    return max(max_message_bytes, min(MOST_QUEUE_BYTES, share))


def cache_bytes(device_memory_bytes: int, device: str) -> int:
    """Return how much of a device's memory a job's decoded images may take."""
    memory = min(device_memory_bytes, host_memory().limit_bytes) if device == "cpu" else device_memory_bytes
    return int(memory * CACHE_FRACTION)


def kept_images_bytes(device_memory_bytes: int, device: str, limit_bytes: int | None = None) -> int:
    """Return how many bytes of decoded images a job that starts now would keep, on its device and in memory.

    `limit_bytes` is the setting `image_cache_bytes`, which `worker.job_images.pixel_store` obeys as well.
    """
    on_device = cache_bytes(device_memory_bytes, device)
    in_memory = int(IMAGES_FRACTION * host_memory().available_bytes)
    room = min(on_device, in_memory) if device == "cpu" else on_device + in_memory
    return room if limit_bytes is None else min(room, limit_bytes)
