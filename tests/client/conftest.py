"""A fake server and a client of it; small images that need no decoder."""

from collections.abc import Iterator

import pytest

import manyview
from manyview.testing import FakeServer


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


@pytest.fixture
def client(server: FakeServer) -> Iterator[manyview.Client]:
    deadlines = manyview.Deadlines(unary_s=10, embed_s=10, idle_s=2, reconnect_s=10)
    with manyview.Client(server.target, deadlines=deadlines) as connected:
        yield connected
