"""Fixtures for tests of whole processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import manyview
from support.service.harness import ServerProcess, wait_until
from support.service.loop_times import LONGEST

# Several threads of torch take three times the CPU time for networks as small as those of tests. A process reads this
# when it imports torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests run beside others on few cores: how long one example takes there says nothing about the code.
hypothesis.settings.register_profile("few-cores", deadline=None)
hypothesis.settings.load_profile("few-cores")

pytest_plugins = ["pytester", "support.soak.soak"]


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first server's description of the torch side. The others reuse it, because making it takes seconds."""
    return tmp_path_factory.mktemp("catalogue") / "catalogue.json"


@pytest.fixture
def new_server(tmp_path: Path, catalogue: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Make servers; at the end of the test each is stopped and must leave no process behind."""
    servers: list[ServerProcess] = []

    def make(*arguments: str, workers: dict[str, Any] | None = None) -> ServerProcess:
        servers.append(
            ServerProcess(tmp_path / f"data{len(servers)}", *arguments, catalogue=catalogue, workers=workers)
        )
        return servers[-1]

    yield make
    for server in servers:
        server.stop()
        wait_until(server.is_gone, "every process of the server is gone", 10)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> Iterator[ServerProcess]:
    """One running server for all tests of a module. No longer: other tests count their own child processes."""
    shared = ServerProcess(tmp_path_factory.mktemp("server") / "data", catalogue=catalogue)
    shared.start()
    yield shared
    shared.stop()
    wait_until(lambda: not shared.processes(), "every process of the server is gone", 10)


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[manyview.Client]:
    """A client of the shared server."""
    with server.client() as shared:
        yield shared


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the longest callback of all servers' event loops, as the fault tests noted them."""
    found = [
        (*value, report.nodeid)
        for reports in terminalreporter.stats.values()
        for report in reports
        for key, value in getattr(report, "user_properties", ())
        if key == LONGEST
    ]
    if found:
        ms, name, test = max(found)
        terminalreporter.line(f"longest callback of the loop: {ms} ms in {test} ({name})")
