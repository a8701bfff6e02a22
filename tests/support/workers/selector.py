"""A scripted selector."""

from __future__ import annotations

import os
import signal
import struct
import sys
import time
from typing import Any

from manyview_server.link.blocking import Link
from manyview_server.messages.selection import RowsSelected, SelectionFailed, SelectRows
from support.workers.behaviour import hello, rest_of_the_day


class Selector:
    """Answers with its process id and the number of threads; the strategy says otherwise."""

    def __init__(self, link: Link, behaviour: Any) -> None:
        self.link = link
        self.plan: dict[str, Any] = {} if behaviour == "normal" else behaviour

    def run(self) -> None:
        if self.plan.get("die") == "at once":
            print("no such library", file=sys.stderr)
            os._exit(1)
        hello(self.link)
        while True:
            request = self.link.receive()
            assert isinstance(request, SelectRows)
            match request.strategy:
                case "die":
                    print("it went wrong", file=sys.stderr, flush=True)
                    os.kill(os.getpid(), signal.SIGSEGV)
                case "hang":
                    rest_of_the_day()
                case "garbage":
                    os.write(self.link._socket.fileno(), b"x" * 100)
                case "fail":
                    self.link.send(SelectionFailed(code="INVALID_ARGUMENT", reason="NO", message="it cannot be done"))
                case _:
                    time.sleep(request.distance)
                    numbers = struct.pack("<2q", os.getpid(), request.source.num_threads)
                    self.link.send(RowsSelected(blobs=(numbers, b"")))
