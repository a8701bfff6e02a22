"""One container for all tests of a module, built from this checkout, and gone afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from support.service.compose import Compose, require_engine


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """The server in its container, healthy at the start of each module's first test."""
    require_engine()
    project = Compose(f"manyview-image-test-{os.getpid()}", tmp_path_factory.mktemp("container"))
    project.build()
    try:
        project.up()
        yield project
    finally:
        project.remove()
