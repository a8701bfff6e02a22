"""The command `manyview-server`: `serve`, and `--version`.

Imports at the top need the standard library alone. A second server on the same data directory must report that within
a second, and importing gRPC, pydantic and numpy takes longer than that on a busy machine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from manyview_server import early_lock
from manyview_server.front import json_logs
from manyview_server.store.lock import DataLock
from manyview_server.store.unusable import StoreLocked

USAGE = """usage: manyview-server serve --data DIR [--listen HOST:PORT] [...]
       manyview-server --version

`manyview-server serve --help` lists every setting."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: 0 after a drain, 1 if the server could not start, 2 for wrong usage.
    """
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or [""]
    if command in ("-h", "--help"):
        print(USAGE)
        return 0
    if command == "--version":
        print(version("manyview"))
        return 0
    if command != "serve":
        print(USAGE, file=sys.stderr)
        return 2
    try:
        lock = early_lock.take(rest, os.environ)
    except StoreLocked as error:
        json_logs.configure("info")
        logging.getLogger(__name__).error("cannot start: %s", error)
        return 1
    return _serve(rest, lock)


def _serve(arguments: Sequence[str], lock: DataLock | None) -> int:
    from manyview_server.config import ServeSettings, SettingsError

    try:
        settings = ServeSettings.load(arguments)
    except SettingsError as error:
        print(f"manyview-server serve: error: {error}", file=sys.stderr)
        return 2
    json_logs.configure(settings.log_level)
    from manyview_server.front.app import App

    return asyncio.run(App(settings, version("manyview"), lock=lock).run())


if __name__ == "__main__":
    sys.exit(main())
