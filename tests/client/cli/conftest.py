"""The terminal on which tests run commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.clients.terminal import Terminal


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    opened = Terminal()
    yield opened
    opened.close()
