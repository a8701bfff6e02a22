"""The command `manyview-server`: `serve`, and `--version`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from importlib.metadata import version

from manyview_server.config import ServeSettings, SettingsError
from manyview_server.front import json_logs
from manyview_server.front.app import App

USAGE = """usage: manyview-server serve --data DIR [--listen HOST:PORT] [...]
       manyview-server --version

`manyview-server serve --help` lists every setting."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit status: 0 after a drain, 1 where it could not start, 2 for wrong usage."""
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
        settings = ServeSettings.load(rest)
    except SettingsError as error:
        print(f"manyview-server serve: error: {error}", file=sys.stderr)
        return 2
    json_logs.configure(settings.log_level)
    return asyncio.run(App(settings, version("manyview")).run())


if __name__ == "__main__":
    sys.exit(main())
