"""The entry of every worker: `python -m manyview_server.worker KIND --link-fd N --notes-fd M`.

The kind `describe` prints JSON and ends. The kind `fork-server` forks a worker of another kind for each request.
"""

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from manyview_server.learn import plugins
from manyview_server.link.blocking import Link
from manyview_server.link.decode_notes import DecodeNotes
from manyview_server.messages.message import Hello
from manyview_server.worker import describe, fork_server
from manyview_server.worker.channel import EXIT_ORPHANED, WorkerChannel
from manyview_server.worker.embedding import embedder
from manyview_server.worker.exact_float32 import compute_float32_exactly
from manyview_server.worker.previewing import previewer
from manyview_server.worker.selecting import selector
from manyview_server.worker.timing import step_timer
from manyview_server.worker.training import trainer
from manyview_server.worker.versions import versions

EXIT_THREAD_FAILED = 70
PR_SET_PDEATHSIG = 1
OOM_SCORE_ADJUSTMENT = "500"
DESCRIBE = "describe"
FORK_SERVER = "fork-server"
RUN = {
    "trainer": trainer.run,
    "embedder": embedder.run,
    "selector": selector.run,
    "previewer": previewer.run,
    "timer": step_timer.run,
}


def main(words: Sequence[str] | None = None) -> None:
    """Run the worker that a command line names, by default the one of this process."""
    arguments = _parse(words)
    _die_with_parent()
    _prefer_as_oom_victim()
    if arguments.kind == FORK_SERVER:
        main(_fork(arguments))
    elif arguments.kind == DESCRIBE:
        _describe(arguments)
    else:
        _work(arguments)


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="manyview_server.worker", description=__doc__)
    parser.add_argument("kind", choices=[*RUN, DESCRIBE, FORK_SERVER])
    parser.add_argument("--link-fd", type=int, help="inherited end of the socket pair to the front")
    parser.add_argument("--notes-fd", type=int, help="inherited memory for the notes of what is being decoded")
    parser.add_argument("--control-fd", type=int, help="inherited socket on which a fork server gets its requests")
    parser.add_argument("--without-plugins", action="store_true", help="ignore what packages have registered")
    parser.add_argument("--backbone", help="describe only this network of a library")
    parser.add_argument("--weights-of", help="say only whether a job of these settings, in JSON, can load its weights")
    parser.add_argument("--weights-dir", help="the directory of these weights")
    arguments = parser.parse_args(words)
    if arguments.kind != DESCRIBE and arguments.link_fd is None:
        parser.error(f"{arguments.kind} needs --link-fd")
    if arguments.kind == FORK_SERVER and arguments.control_fd is None:
        parser.error(f"{arguments.kind} needs --control-fd")
    return arguments


def _work(arguments: argparse.Namespace) -> None:
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # prints a stack of each thread, to find out why a worker hangs
    threading.excepthook = _end_process
    compute_float32_exactly()
    notes = DecodeNotes(arguments.notes_fd) if arguments.notes_fd is not None else None
    channel = WorkerChannel(Link(socket.socket(fileno=arguments.link_fd)), notes)
    channel.send(_hello())
    RUN[arguments.kind](channel)


def _describe(arguments: argparse.Namespace) -> None:
    if arguments.without_plugins:
        plugins.leave_out()
    stdout = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # plugins may print when they are imported
        print(json.dumps(_described(arguments)), file=stdout)


def _described(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.weights_of:
        return describe.check_weights(json.loads(arguments.weights_of), arguments.weights_dir)
    return describe.describe_backbone(arguments.backbone) if arguments.backbone else describe.describe()


def _fork(arguments: argparse.Namespace) -> list[str]:
    """Return, in each forked worker, its command line. The fork server itself never returns."""
    link = Link(socket.socket(fileno=arguments.link_fd))
    command_line = fork_server.serve(socket.socket(fileno=arguments.control_fd), lambda: link.send(_hello()))
    link.close()
    if arguments.notes_fd is not None:
        os.close(arguments.notes_fd)
    return command_line


def _hello() -> Hello:
    return Hello(pid=os.getpid(), versions=versions())


def _die_with_parent() -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the line above
        os._exit(EXIT_ORPHANED)


def _prefer_as_oom_victim() -> None:
    """Let the kernel kill a worker, which is started again, rather than the server when memory runs out."""
    with contextlib.suppress(OSError):  # the operator has set a higher value
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE_ADJUSTMENT)


def _end_process(failure: threading.ExceptHookArgs) -> None:
    """End the process when one of its threads fails: without that thread, the worker would hang."""
    traceback.print_exception(failure.exc_value)
    sys.stderr.flush()
    os._exit(EXIT_THREAD_FAILED)


if __name__ == "__main__":
    main()
