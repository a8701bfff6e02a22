"""A worker that prints a JSON object about itself, and exits with status 7 when its link ends.

Its command line is `KIND --link-fd N --notes-fd M`. The kind `fork-server` is a fork server of such workers.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from manyview_server.link.blocking import Link
from manyview_server.link.frames import LinkClosed
from manyview_server.messages.message import Hello
from manyview_server.worker import fork_server
from support.service.forks import EXIT


def main(observed: Callable[[], Any]) -> None:
    arguments = parse(sys.argv[1:])
    if arguments.kind == "fork-server":
        fork_server.IDLE_S = 86400.0  # it imports nothing that these workers do not need
        link = Link(socket.socket(fileno=arguments.link_fd))
        control = socket.socket(fileno=arguments.control_fd)
        words = fork_server.serve(control, lambda: link.send(Hello(pid=os.getpid(), versions={})))
        link.close()
        os.close(arguments.notes_fd)
        arguments = parse(words)
    if arguments.fail:
        raise RuntimeError("asked to fail")
    print(json.dumps(observed()))
    try:
        Link(socket.socket(fileno=arguments.link_fd)).receive()
    except LinkClosed:
        sys.exit(EXIT)


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind")
    for name in ("--link-fd", "--notes-fd", "--control-fd"):
        parser.add_argument(name, type=int)
    parser.add_argument("--fail", action="store_true")
    return parser.parse_args(words)
