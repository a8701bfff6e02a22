"""Fixtures for whole runs against one server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.clients.wire import Wire
from support.service.harness import ServerProcess


@pytest.fixture(scope="module")
def wire(server: ServerProcess) -> Iterator[Wire]:
    """The shared server, past the SDK."""
    direct = Wire(server.address)
    yield direct
    direct.channel.close()
