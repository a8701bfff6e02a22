"""The tools of a section: the device, sizes, a record of its results, and clocks that wait for the device."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from benchmarks.gpu.sections import Record
from benchmarks.results import machine
from torch import Tensor

from benchmarks.gpu import wheels
from manyview_server.worker.exact_float32 import compute_float32_exactly

CPU = torch.device("cpu")
NO_DEVICE = "no CUDA device"


class Bench:
    """One section's view of the run."""

    def __init__(self, record: Record, ends_at: float, *, device: torch.device, quick: bool, scratch: Path) -> None:
        """
        Args:
            ends_at: when the section's time is over, by time.monotonic().
            quick: sizes are tiny and figures mean nothing.
        """
        self._record = record
        self._ends_at = ends_at
        self.device = device
        self.quick = quick
        self.scratch = scratch
        self.cuda = device.type == "cuda"
        compute_float32_exactly()  # as every worker does
        if not self.cuda:
            self.skip("comparisons with the CPU", f"{NO_DEVICE}: the CPU was compared with itself")

    def size(self, full: int, quick: int) -> int:
        """Return `full`, or `quick` in a quick run."""
        return quick if self.quick else full

    @property
    def seconds_left(self) -> float:
        """Return the seconds that are left for this section."""
        return self._ends_at - time.monotonic()

    def check(self, name: str, ok: bool, detail: str = "") -> None:
        """Record whether something holds."""
        self._record.checks.append({"name": name, "ok": bool(ok), "detail": detail})

    def close(self, name: str, found: Tensor, expected: Tensor, tolerance: float, why: str) -> None:
        """Check that the length of the difference is at most `tolerance` times that of `expected`. NaN never passes.

        `why` says where the tolerance comes from.
        """
        error = relative_error(found, expected)
        self.check(name, error <= tolerance, f"relative error {error:.3g}, at most {tolerance:g}: {why}")

    def same(self, name: str, found: Tensor, expected: Tensor) -> None:
        """Check that two tensors are equal, bit for bit."""
        found, expected = found.detach().cpu(), expected.detach().cpu()
        if found.shape != expected.shape or found.dtype != expected.dtype:
            shapes = f"{found.dtype} {tuple(found.shape)}, not {expected.dtype} {tuple(expected.shape)}"
            return self.check(name, False, shapes)
        different = int((found != expected).sum())
        return self.check(name, different == 0, f"{different} of {found.numel()} values differ")

    def figure(self, row: str, what: str, value: float, unit: str, **conditions: Any) -> None:
        """Record a measured number under a row of the table of targets, or under "context", which is not a row."""
        self._record.figures.append(
            {"row": row, "what": what, "value": float(f"{value:.6g}"), "unit": unit, "conditions": conditions}
        )

    def skip(self, what: str, reason: str) -> None:
        """Record that a part was left out."""
        self._record.skipped.append(f"{what}: {reason}")

    def wait(self) -> None:
        """Wait until the device has finished all its work."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def median_ms(self, call: Callable[[], object], *, repeats: int = 20, warm_up: int = 5) -> float:
        """Return the median time of a call, measured on the device if there is one, by events that are read at the
        end."""
        repeats, warm_up = self.size(repeats, 2), self.size(warm_up, 1)
        for _ in range(warm_up):
            call()
        self.wait()
        if not self.cuda:
            return statistics.median(_seconds(call) * 1e3 for _ in range(repeats))
        pairs = []
        for _ in range(repeats):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record(torch.cuda.current_stream(self.device))
            call()
            end.record(torch.cuda.current_stream(self.device))
            pairs.append((start, end))
        self.wait()
        return statistics.median(start.elapsed_time(end) for start, end in pairs)

    def host_ms(self, call: Callable[[], object], *, repeats: int = 10, warm_up: int = 3) -> float:
        """Return the median time for which a call keeps the host busy, when the device has nothing else to do."""
        repeats, warm_up = self.size(repeats, 2), self.size(warm_up, 1)
        for _ in range(warm_up):
            call()
        times = []
        for _ in range(repeats):
            self.wait()
            times.append(_seconds(call) * 1e3)
        self.wait()
        return statistics.median(times)

    def peak_bytes(self, call: Callable[[], object]) -> int | None:
        """Return the most device memory that a call holds beyond what was held before, or None without a device."""
        if not self.cuda:
            return None
        call()  # so that what is allocated only once is there already
        self.wait()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        call()
        self.wait()
        return torch.cuda.max_memory_allocated(self.device) - before

    @contextmanager
    def forbidding_waits(self) -> Iterator[None]:
        """Make it an error to wait for the device while the block runs."""
        if not self.cuda:
            yield
            return
        self.wait()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def release(self) -> None:
        """Release cached memory, so that the peak of one part is not missing in another."""
        if self.cuda:
            torch.cuda.empty_cache()


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the length of the difference as a share of the length of `expected`, or NaN if anything is not finite."""
    found, expected = found.detach().cpu().double(), expected.detach().cpu().double()
    if found.shape != expected.shape or not found.isfinite().all():
        return float("nan")
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))


def card_name(device: torch.device) -> str:
    """Return the device's name as a part of a file's name, such as "nvidia-h100-80gb-hbm3"."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def describe(device: torch.device, *, quick: bool) -> dict[str, Any]:
    """Describe this machine, with the versions of its software."""
    cuda = device.type == "cuda"
    return {
        "card": torch.cuda.get_device_name(device) if cuda else "none",
        "memory_bytes": torch.cuda.get_device_properties(device).total_memory if cuda else 0,
        "driver": _asked("driver_version"),
        "clocks": _asked("clocks.sm,clocks.mem,clocks.max.sm,power.limit"),
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda),
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "python": ".".join(map(str, sys.version_info[:3])),
        "host": machine(),
        "other_versions": wheels.other_versions(),
        "quick": quick,
        "time": datetime.now(UTC).isoformat("T", "seconds"),
    }


def _asked(query: str) -> str:
    """Return the answer of nvidia-smi, or an empty text without nvidia-smi. The query changes nothing."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
