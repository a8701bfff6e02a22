"""The time, the CPU time and the competition of the counted steps of a turn."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from benchmarks.peers.usage import machine_cpu_s, tree_cpu_s


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The state of the clocks. This process and all its descendants are one side."""

    wall_s: float = field(default_factory=time.perf_counter)
    side_cpu_s: float = field(default_factory=lambda: tree_cpu_s(os.getpid()))
    machine_cpu_s: float = field(default_factory=machine_cpu_s)


def between(began: Moment, ended: Moment, num_images: int) -> dict[str, float]:
    """Return what the images of the counted steps took."""
    wall_s, cpu_s = ended.wall_s - began.wall_s, ended.side_cpu_s - began.side_cpu_s
    others_s = ended.machine_cpu_s - began.machine_cpu_s - cpu_s
    return {
        "images_per_second": num_images / wall_s,
        "cpu_ms_per_image": 1e3 * cpu_s / num_images,
        "others": max(0.0, others_s / wall_s),
    }
