"""Fixtures for whole runs against one server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import ServerProcess
from wire import Wire


@pytest.fixture(scope="module")
def wire(server: ServerProcess) -> Iterator[Wire]:
    """The shared server, past the SDK."""
    direct = Wire(server.address)
    yield direct
    direct.channel.close()
