"""Run sections, each within its time and with its own record. A section that fails does not lose the others'
results."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.gpu.document import Document

LEAST_S = 2.0
"""A section does not start with less time than this."""
GRACE_S = 15.0
"""This long after the deadline of the run, the process ends, whatever it is doing."""
EXIT_FAILED, EXIT_CUT, EXIT_HANGS = 1, 2, 4


class OutOfTime(BaseException):
    """The section's time is over. It is a BaseException, so that code that catches its own errors does not catch
    this."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the run."""

    name: str
    call: str
    """Its function, as "module.function" of this package."""
    budget_s: float
    rows: tuple[str, ...] = ()
    """The rows of the table of targets that it measures, such as "G12"."""
    needs: tuple[str, ...] = ()
    """The modules that it needs besides torch, numpy, Pillow, timm and safetensors."""

    def function(self) -> Callable[[Any], None]:
        """Return the section's function, which takes a `Bench`."""
        module, _, name = self.call.rpartition(".")
        found: Callable[[Any], None] = getattr(importlib.import_module(f"benchmarks.gpu.{module}"), name)
        return found

    def missing(self) -> list[str]:
        """Return the modules that it needs and that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


@dataclass(kw_only=True)
class Record:
    """The results of a section."""

    checks: list[dict[str, Any]] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Parts that were left out, each with its reason."""


class Runner:
    """Runs sections one after the other until the deadline, and writes the document after each."""

    def __init__(
        self,
        document: Document,
        ends_at: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        limit: Callable[[float], AbstractContextManager[None]] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        """
        Args:
            ends_at: when the run's time is over, by `clock`.
            limit: a context manager that raises OutOfTime in its block after the given seconds.
        """
        self._document = document
        self._ends_at = ends_at
        self._clock = clock
        self._limit = interrupted_after if limit is None else limit
        self._say = say

    def run(self, sections: Sequence[Section], bench_for: Callable[[Record, float], Any]) -> int:
        """Run the sections that are not in the document yet. Returns the exit status: 0, EXIT_FAILED or EXIT_CUT.

        `bench_for` makes the argument of a section from its record and the time at which it must end.
        """
        for section in sections:
            if self._document.holds(section.name):
                self._say(f"{section.name}: kept from the run before")
                continue
            outcome = self._one(section, bench_for)
            self._document.add(outcome)
            reason = f" ({outcome['reason'].splitlines()[-1]})" if outcome["reason"] else ""
            self._say(f"{section.name}: {outcome['status']}, {outcome['seconds']:.1f} s{reason}")
        outcomes = {each["status"] for each in self._document.sections}
        if "failed" in outcomes:
            return EXIT_FAILED
        return EXIT_CUT if "out of time" in outcomes else 0

    def _one(self, section: Section, bench_for: Callable[[Record, float], Any]) -> dict[str, Any]:
        record, began = Record(), self._clock()
        status, reason, trace = "ok", "", ""
        left = self._ends_at - began
        if missing := section.missing():
            status, reason = "skipped", f"not installed: {', '.join(missing)} (see --wheels)"
        elif left < LEAST_S:
            status, reason = "out of time", "the time of the whole run was over before it started"
        else:
            seconds = min(section.budget_s, left)
            try:
                with self._limit(seconds):
                    section.function()(bench_for(record, began + seconds))
            except OutOfTime:
                status, reason = "out of time", f"it was stopped after {seconds:.0f} s"
            except Exception as error:
                status, reason, trace = "failed", f"{type(error).__name__}: {error}", traceback.format_exc()
                self._say(trace)
        if status != "failed" and not all(check["ok"] for check in record.checks):
            status, reason = "failed", "a check failed"
        return {
            "section": section.name,
            "status": status,
            "seconds": round(self._clock() - began, 2),
            "reason": reason,
            "traceback": trace,
            "checks": record.checks,
            "figures": record.figures,
            "skipped": record.skipped,
        }


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the main thread after `seconds`, as soon as the interpreter runs again."""

    def interrupt(number: int, frame: object) -> None:
        raise OutOfTime

    before, began = signal.signal(signal.SIGALRM, interrupt), time.monotonic()
    others, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        left = max(0.001, others - (time.monotonic() - began)) if others else 0.0
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left)  # restore the alarm that was set before


def end_process_at(ends_at: float) -> None:
    """End this process some seconds after its deadline, even if a call into a library never returns."""

    def wait() -> None:
        time.sleep(max(0.0, ends_at + GRACE_S - time.monotonic()))
        print("The run still hangs after its deadline, so it is ended. The results so far are in the file.", flush=True)
        os._exit(EXIT_HANGS)

    threading.Thread(target=wait, name="deadline", daemon=True).start()
