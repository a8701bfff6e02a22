"""Real worker processes, and small data sets for them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def harness() -> ModuleType:
    """The module `harness.py` beside this file: tests are no package, so it cannot be imported by name."""
    spec = importlib.util.spec_from_file_location("worker_harness", Path(__file__).with_name("harness.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
