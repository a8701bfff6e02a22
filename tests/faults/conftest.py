"""The longest callback of each test's servers is noted; `tests/conftest.py` prints the longest of all."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from support.service.harness import ServerProcess
from support.service.loop_times import LONGEST, LoopTimes

LOOP_TIMES = LoopTimes()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    yield
    # After the fixtures: servers are stopped by now. Properties travel to the process that prints the summary.
    ms, name = LOOP_TIMES.longest(ServerProcess.logs)
    if ms:
        item.user_properties.append((LONGEST, (ms, name)))
