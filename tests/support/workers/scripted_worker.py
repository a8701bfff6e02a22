"""A worker of a few lines for the tests of supervise. `command(SCRIPT)` starts it; the arguments of a worker follow.

SCRIPT is an object: {"trainer": BEHAVIOUR, "embedder": …, "previewer": …, "selector": …, "timer": …, "describe": TEXT,
"once_file": PATH}. With `once_file` a behaviour is a list: each start takes the next one, and later starts the last.
A script without "describe" has the real description.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from manyview_server.link.blocking import Link
from manyview_server.link.decode_notes import DecodeNotes
from manyview_server.link.frames import LinkClosed
from support.workers import program
from support.workers.embedder import Embedder
from support.workers.previewer import preview
from support.workers.selector import Selector
from support.workers.step_timer import time_steps
from support.workers.trainer import Trainer


def command(script: dict[str, Any]) -> tuple[str, ...]:
    """Return the command of a worker that follows this script."""
    return program.command("support.workers.scripted_worker", json.dumps(script))


def main() -> None:
    script = json.loads(sys.argv[1])
    parser = argparse.ArgumentParser()
    parser.add_argument("kind")
    parser.add_argument("--link-fd", type=int)
    parser.add_argument("--notes-fd", type=int)
    parsed, _ = parser.parse_known_args(sys.argv[2:])
    if parsed.kind == "describe" and "describe" not in script:
        os.execv(sys.executable, [sys.executable, "-m", "manyview_server.worker", *sys.argv[2:]])
    behaviour = script.get(parsed.kind, "normal")
    if isinstance(behaviour, list):
        behaviour = behaviour[min(starts(Path(script["once_file"])), len(behaviour) - 1)]
    link = Link(socket.socket(fileno=parsed.link_fd))
    notes = DecodeNotes(parsed.notes_fd)
    try:
        if parsed.kind == "describe":
            print(behaviour)
        elif parsed.kind == "trainer":
            Trainer(link, behaviour, notes).run()
        elif parsed.kind == "selector":
            Selector(link, behaviour).run()
        elif parsed.kind == "previewer":
            preview(link, behaviour, notes)
        elif parsed.kind == "timer":
            time_steps(link, behaviour)
        else:
            Embedder(link, behaviour, notes).run()
    except LinkClosed:
        os._exit(3)


def starts(path: Path) -> int:
    """Count this start, and return the number of earlier ones."""
    before = len(path.read_text()) if path.exists() else 0
    path.write_text("x" * (before + 1))
    return before
