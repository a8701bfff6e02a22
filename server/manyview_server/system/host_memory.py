"""The memory that this process may use: the machine's, or less if a control group allows less.

The front and the workers plan with it. With a limit of 512 MiB on a machine of 64 GiB, the kernel would kill a process
that plans with the machine's memory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from manyview_server.system.control_groups import ROOT, Group, counter, groups

KIB = 1024
IMAGES_FRACTION = 0.5
"""The largest share of the available memory that the decoded images of a job take: of what there is without them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """Memory in bytes."""

    limit_bytes: int
    """The memory of the machine, or the least that a control group of this process allows."""
    available_bytes: int
    """The memory that can be allocated now, on the machine and in every control group of this process."""


def host_memory(root: Path = ROOT) -> HostMemory:
    """Read how much memory this process may use. It takes less than a millisecond.

    Args:
        root: the directory that holds `proc`, and the mount points of control groups.
    """
    meminfo = root / "proc/meminfo"
    total = counter(meminfo, "MemTotal") * KIB or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, available = total, counter(meminfo, "MemAvailable") * KIB or total
    for group in groups("memory", root):
        allowed = _limit_bytes(group)
        if allowed is not None and allowed < total:
            limit = min(limit, allowed)
            available = min(available, allowed - _used_bytes(group))
    return HostMemory(limit_bytes=limit, available_bytes=max(0, min(available, limit)))


def _limit_bytes(group: Group) -> int | None:
    """Return what the group may use, or None. Above `memory.high`, the kernel slows its processes down severely."""
    names = ("memory.max", "memory.high") if group.version == 2 else ("memory.limit_in_bytes",)
    limits = [numbers[0] for name in names if (numbers := group.numbers(name))]
    return min(limits, default=None)


def _used_bytes(group: Group) -> int:
    """Return what the group uses, without pages of files that were not used lately: the kernel drops these at need."""
    if group.version == 2:
        usage, reclaimable = "memory.current", "inactive_file"
    else:
        usage, reclaimable = "memory.usage_in_bytes", "total_inactive_file"
    used = (group.numbers(usage) or (0,))[0]
    return max(0, used - group.counter("memory.stat", reclaimable))
