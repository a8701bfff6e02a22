"""The soak: every test of faults in as many rounds as are asked for, and the tests that are marked `long`, once.

Rounds that passed before are left out, each round is counted as it ends, and a skip is a failure.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from support.service.loop_times import LONGEST
from support.soak.rounds import soaking
from support.soak.totals import Totals

FAULTS = Path(__file__).parents[2] / "faults"
TOTALS = FAULTS / "totals.json"
MINUTES = "MANYVIEW_SOAK_MINUTES"
"""After so many minutes no further round is started."""

STARTED = time.monotonic()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under soak, leave out what does not belong to it, and the rounds that passed."""
    if not soaking():
        return
    totals = Totals(TOTALS)
    wanted = [item for item in items if _belongs(item) and not totals.has_passed(*_round(item))]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(wanted)])
    # Seed by seed, so that a run that is cut off has run each test about as often.
    items[:] = sorted(wanted, key=lambda item: (str(item.path), _round(item)[1]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under soak, count a round when it ends."""
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


def pytest_runtest_logfinish(nodeid: str) -> None:
    """End the run when its minutes are over."""
    minutes = os.environ.get(MINUTES)
    if minutes and time.monotonic() - STARTED > 60 * float(minutes):
        pytest.exit(f"{minutes} minutes are over; the next run continues after {nodeid}", returncode=0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the totals of all soak runs."""
    if soaking():
        terminalreporter.section(f"totals of all soak runs, in {TOTALS}")
        for name, value in Totals(TOTALS).summary().items():
            terminalreporter.line(f"{name:24} {value:g}")


def _belongs(item: pytest.Item) -> bool:
    return item.path.is_relative_to(FAULTS) or item.get_closest_marker("long") is not None


def _round(item: pytest.Item) -> tuple[str, int]:
    """Return a test's name with its other parameters, and its seed: 0 if it has none."""
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    name = getattr(item, "originalname", item.name)
    others = "-".join(str(value) for key, value in parameters.items() if key != "seed")
    return f"{item.path.name}::{name}" + (f"[{others}]" if others else ""), int(parameters.get("seed", 0))
