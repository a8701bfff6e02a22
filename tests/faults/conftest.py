"""Under soak: rounds that passed before are left out, each round is counted as it ends, and a skip is a failure.

The longest callback of each test's servers is noted; `tests/conftest.py` prints the longest of all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from support.faults.rounds import soaking
from support.faults.totals import Totals
from support.service.harness import ServerProcess
from support.service.loop_times import LONGEST, LoopTimes

HERE = Path(__file__).parent
TOTALS = HERE / "totals.json"
MINUTES = "MANYVIEW_SOAK_MINUTES"
"""After so many minutes no further round is begun."""

STARTED = time.monotonic()

LOOP_TIMES = LoopTimes()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not soaking():
        return
    totals = Totals(TOTALS)
    rounds = [item for item in items if item.path.is_relative_to(HERE)]
    done = {item for item in rounds if totals.has_passed(*_round(item))}
    config.hook.pytest_deselected(items=list(done))
    # Seed by seed, so that a run that is cut off has run each test about as often.
    items[:] = sorted((item for item in items if item not in done), key=lambda item: (str(item.path), _round(item)[1]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not soaking():
        return report
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"nothing may be skipped under soak: {call.excinfo.value if call.excinfo else ''}"
    if report.when == "call" or report.failed:
        figures: dict[str, Any] = {}
        for name, value in item.user_properties:
            if name == LONGEST:
                continue
            figures[name] = value if name.startswith("max_") else figures.get(name, 0) + value
        test, seed = _round(item)
        counted = figures if report.when == "call" else {}
        Totals(TOTALS).add(test, seed, passed=report.passed, seconds=report.duration, figures=counted)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    yield
    # After the fixtures: servers are stopped by now. Properties travel to the process that prints the summary.
    ms, name = LOOP_TIMES.longest(ServerProcess.logs)
    if ms:
        item.user_properties.append((LONGEST, (ms, name)))


def pytest_runtest_logfinish(nodeid: str) -> None:
    minutes = os.environ.get(MINUTES)
    if minutes and time.monotonic() - STARTED > 60 * float(minutes):
        pytest.exit(f"{minutes} minutes are over; the next run goes on after {nodeid}", returncode=0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if soaking():
        terminalreporter.section(f"totals of all soak runs, in {TOTALS}")
        for name, value in Totals(TOTALS).summary().items():
            terminalreporter.line(f"{name:24} {value:g}")


def _round(item: pytest.Item) -> tuple[str, int]:
    """A test's name with its other parameters, and its seed: 0 where it has none."""
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    name = getattr(item, "originalname", item.name)
    others = "-".join(str(value) for key, value in parameters.items() if key != "seed")
    return f"{item.path.name}::{name}" + (f"[{others}]" if others else ""), int(parameters.get("seed", 0))
