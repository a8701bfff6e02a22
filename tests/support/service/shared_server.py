"""One server for the tests of many modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.service.harness import ServerProcess, wait_until


class SharedServer:
    """A server that the first test that wants it starts. A test that failed may have left it dead: it starts again."""

    def __init__(self) -> None:
        self._server: ServerProcess | None = None

    def running(self, tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> ServerProcess:
        """Return the server, started where it does not run."""
        if self._server is None:
            self._server = ServerProcess(tmp_path_factory.mktemp("shared") / "data", catalogue=catalogue, one_core=True)
        if self._server.process is None or self._server.died():
            self._server.start()
        return self._server

    def stop(self) -> None:
        """Stop the server, where there is one. It must leave no process behind."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
            wait_until(server.is_gone, "every process of the server is gone", 10)
