"""`python -m manyview_server.worker KIND --link-fd N --notes-fd M`, or `describe`, which prints JSON and ends."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path

from manyview_server.learn import plugins
from manyview_server.link.blocking import Link
from manyview_server.link.decode_notes import DecodeNotes
from manyview_server.messages.message import Hello
from manyview_server.worker import describe
from manyview_server.worker.channel import EXIT_ORPHANED, Channel
from manyview_server.worker.embedding import embedder
from manyview_server.worker.exact_float32 import compute_float32_exactly
from manyview_server.worker.previewing import previewer
from manyview_server.worker.selecting import selector
from manyview_server.worker.training import trainer
from manyview_server.worker.versions import versions

EXIT_THREAD_FAILED = 70
PR_SET_PDEATHSIG = 1
OOM_SCORE_ADJUSTMENT = "500"
RUN = {"trainer": trainer.run, "embedder": embedder.run, "selector": selector.run, "previewer": previewer.run}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="manyview_server.worker", description=__doc__)
    parser.add_argument("kind", choices=[*RUN, "describe"])
    parser.add_argument("--link-fd", type=int, help="inherited end of the socketpair to the front")
    parser.add_argument("--notes-fd", type=int, help="descriptor of inherited memory for the notes of what is decoded")
    parser.add_argument("--without-plugins", action="store_true", help="as if no package had registered any")
    arguments = parser.parse_args()
    _die_with_parent()
    _go_before_the_server()
    if arguments.kind == "describe":
        if arguments.without_plugins:
            plugins.leave_out()
        with contextlib.redirect_stdout(sys.stderr):  # whatever plugins print when they are imported
            found = describe.describe()
        print(json.dumps(found))
        return
    if arguments.link_fd is None:
        parser.error(f"{arguments.kind} needs --link-fd")
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # a stack of every thread, for an operator who looks into a hang
    threading.excepthook = _end_process
    compute_float32_exactly()
    notes = DecodeNotes(arguments.notes_fd) if arguments.notes_fd is not None else None
    channel = Channel(Link(socket.socket(fileno=arguments.link_fd)), notes)
    channel.send(Hello(pid=os.getpid(), versions=versions()))
    RUN[arguments.kind](channel)


def _die_with_parent() -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(EXIT_ORPHANED)


def _go_before_the_server() -> None:
    """If memory runs out, the kernel must kill a worker, which is started again, and not the server."""
    with contextlib.suppress(OSError):  # the operator has set it higher
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE_ADJUSTMENT)


def _end_process(failure: threading.ExceptHookArgs) -> None:
    """A thread that fails takes the process with it: without one of its threads a worker would only hang."""
    traceback.print_exception(failure.exc_value)
    sys.stderr.flush()
    os._exit(EXIT_THREAD_FAILED)


if __name__ == "__main__":
    main()
