"""Fixtures for whole runs. All of them share one server, and each names its data sets and jobs as no other does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.clients.wire import Wire
from support.service.harness import ServerProcess
from support.service.shared_server import SharedServer

SHARED = SharedServer()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> ServerProcess:
    """The server of all tests of this folder. A test may kill it or its workers, and leaves it running."""
    return SHARED.running(tmp_path_factory, catalogue)


@pytest.fixture(scope="module")
def wire(server: ServerProcess) -> Iterator[Wire]:
    """The shared server, past the SDK."""
    direct = Wire(server.address)
    yield direct
    direct.channel.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Iterator[None]:
    """Stop the shared server before the tests of another folder, which may count their child processes."""
    yield
    if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
        SHARED.stop()


def pytest_sessionfinish() -> None:
    """Stop it where the run was interrupted."""
    SHARED.stop()
