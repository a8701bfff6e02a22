"""The command `manyview-server`: `serve`, and `--version`.

Imports at the top need the standard library alone. A missing package, a data directory or a port in use, and a missing
file must be reported within a second, and importing gRPC, pydantic and numpy takes longer than that on a busy machine.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from manyview_server.early import lock, packages, paths, port
from manyview_server.early.settings import EarlySettings
from manyview_server.early.start_line import StartLine
from manyview_server.front import json_logs
from manyview_server.store.lock import DataLock
from manyview_server.store.unusable import StoreLocked
from manyview_server.system import heap

USAGE = """usage: manyview-server serve --data DIR [--listen HOST:PORT] [...]
       manyview-server --version

`manyview-server serve --help` lists every setting."""

INTERRUPTED = 130
"""The exit status after Ctrl-C during the start, as shells expect it."""

log = logging.getLogger(__name__)


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
        packages.check()
    except packages.PackagesMissing as error:
        print(f"manyview-server: error: {error}", file=sys.stderr)
        return 1
    line = StartLine(sys.stderr)
    try:
        return _serve(rest, line)
    except KeyboardInterrupt:  # while it started; a server that serves drains
        line.end()
        print("manyview-server: stopped before it served", file=sys.stderr)
        return INTERRUPTED
    finally:
        line.end()


def _serve(arguments: Sequence[str], line: StartLine) -> int:
    """Check what can be checked at once, import the rest, and serve."""
    held: DataLock | None = None
    if any(word in ("-h", "--help") for word in arguments):
        line.show("loading the settings")
        importlib.import_module("manyview_server.config")
        line.end()  # the help is printed next
    else:
        json_logs.configure("info", line)
        settings = EarlySettings.read(arguments, os.environ)
        try:
            held = _check_early(settings)
        except (StoreLocked, paths.PathUnusable, port.AddressUnusable) as error:
            log.error("cannot start: %s", error)
            return 1
        json_logs.configure(settings.log_level, line)
        line.show("loading the server")
    return _run(arguments, line, held)


def _check_early(settings: EarlySettings) -> DataLock | None:
    """Return the lock of the data directory, if there is a store. Raises the error of the first check that fails."""
    held = lock.take(settings.data)
    paths.check(settings)
    port.check(settings.listen)
    return held


def _run(arguments: Sequence[str], line: StartLine, held: DataLock | None) -> int:
    from manyview_server.config import ServeSettings, SettingsError

    try:
        settings = ServeSettings.load(arguments)
    except SettingsError as error:
        line.end()
        print(f"manyview-server serve: error: {error}", file=sys.stderr)
        return 2
    json_logs.configure(settings.log_level, line)
    heap.keep_freed_memory()
    from manyview_server.front.app import App

    return asyncio.run(App(settings, version("manyview"), lock=held, on_start=line).run())


if __name__ == "__main__":
    sys.exit(main())
