"""The results of all soak runs so far: for each test the rounds that passed and failed, and the sum of their figures.

One JSON file, rewritten after each round, so that a run that is cut off loses nothing and the next one continues.
Several processes may add rounds at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MOST = "max_"
"""Figures of this prefix are not added up: the largest is kept."""


class Totals:
    """The file of totals."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tests = _read(path)

    def has_passed(self, test: str, seed: int) -> bool:
        """Was this round run before, without a failure?"""
        return seed in self._tests.get(test, {}).get("passed", [])

    def add(self, test: str, seed: int, *, passed: bool, seconds: float, figures: Mapping[str, float]) -> None:
        """Count a round and write the file. A round that failed once stays listed as failed, whatever comes later;
        one that failed after it had passed, in its teardown, is run again."""
        with _locked(self._path.parent):
            self._tests = _read(self._path)
            self._add(test, seed, passed=passed, seconds=seconds, figures=figures)
            self._write()

    def _add(self, test: str, seed: int, *, passed: bool, seconds: float, figures: Mapping[str, float]) -> None:
        entry = self._tests.setdefault(test, {"passed": [], "failed": [], "seconds": 0.0, "figures": {}})
        others = {*entry["passed"]} - {seed}
        entry["passed"] = sorted(others | {seed} if passed else others)
        entry["failed"] = sorted({*entry["failed"]} | (set() if passed else {seed}))
        entry["seconds"] = round(entry["seconds"] + seconds, 1)
        for name, value in figures.items():
            before = entry["figures"].get(name, 0)
            entry["figures"][name] = max(before, value) if name.startswith(MOST) else before + value

    def summary(self) -> dict[str, float]:
        """The figures over all tests."""
        total: dict[str, float] = {"rounds": 0, "failed_rounds": 0}
        for entry in self._tests.values():
            total["rounds"] += len(entry["passed"])
            total["failed_rounds"] += len(entry["failed"])
            for name, value in entry["figures"].items():
                before = total.get(name, 0)
                total[name] = max(before, value) if name.startswith(MOST) else before + value
        return total

    def _write(self) -> None:
        content = {"totals": self.summary(), "tests": dict(sorted(self._tests.items()))}
        draft = self._path.with_suffix(".tmp")
        # Lists of seeds on one line each: the file is read by people, and kept under version control.
        draft.write_text(_on_one_line(json.dumps(content, indent=1)) + "\n")
        os.replace(draft, self._path)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    tests: dict[str, dict[str, Any]] = json.loads(path.read_text())["tests"] if path.exists() else {}
    return tests


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep other processes that add rounds waiting while the block runs."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _on_one_line(text: str) -> str:
    """JSON with the numbers of each list in one line."""
    return re.sub(
        r"\[[\d\s,]*\]", lambda found: re.sub(r"\s+", " ", found[0]).replace("[ ", "[").replace(" ]", "]"), text
    )
