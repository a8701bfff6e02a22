"""Real worker processes, and small data sets for them."""

from __future__ import annotations

from types import ModuleType

import pytest

from support.learning import worker_harness


@pytest.fixture(scope="session")
def harness() -> ModuleType:
    return worker_harness
