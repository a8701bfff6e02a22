"""A server with packages of plugins. Each module has a fixture `packages`: the folder in which they are installed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import manyview
from support.service.harness import ServerProcess


@pytest.fixture(scope="module")
def plugged(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH", "")])))
        server = ServerProcess(tmp_path_factory.mktemp("server") / "data")
        server.start()
        yield server
        assert server.stop() == 0


@pytest.fixture(scope="module")
def client(plugged: ServerProcess) -> Iterator[manyview.Client]:
    with plugged.client() as connected:
        yield connected
