"""The fork server: a process that has imported torch, from which workers are forked in milliseconds.

It has one thread and no CUDA context, because neither would survive a fork. A worker is forked twice, and the process
in between ends at once. The kernel then makes the worker a child of the front, which is the subreaper at that moment.
So the front itself sees the worker's exit status, and the worker outlives the fork server.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import importlib.metadata
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from manyview_server.counted_noun import number_of
from manyview_server.link.fork_requests import (
    EXIT_UNFIT,
    ForkAnswer,
    ForkRequest,
    WorkerDescriptors,
    receive_request,
    send_answer,
)
from manyview_server.worker.channel import EXIT_ORPHANED

IDLE_S = 30.0
"""After this time without a request, the server imports one piece of what only some workers need. It waits as long
before each further piece. A request that comes during an import waits for its end, a second or two, so pauses must be
much longer."""
LATER_IMPORTS = ("torchvision.models", "safetensors.torch", "huggingface_hub", "timm.layers", "timm.data", "timm")
REPARENTED_POLL_S = 0.0002
OPENBLAS_SETTERS = ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads64_", "openblas_set_num_threads")
ARGUMENTS_START, ARGUMENTS_END = 47, 48
"""Fields of /proc/self/stat, from 0: where in memory the command line lies."""


def serve(control: socket.socket, announce: Callable[[], None]) -> list[str]:
    """Fork a worker for each request, until the front closes its end of `control`; then the process ends.

    It returns only in the workers: the arguments of their command line.
    """
    front = os.getppid()
    _freeze()
    _check_fitness()
    announce()
    left = list(LATER_IMPORTS)
    while True:
        while left and not select.select([control], [], [], IDLE_S)[0]:
            importlib.import_module(left.pop(0))
            _freeze()
        if (received := receive_request(control)) is None:
            sys.exit(0)
        request, descriptors = received
        _check_fitness()
        if _fork_twice(front, control):
            arguments = _arguments(request, descriptors)
            _show_command_line([*sys.orig_argv[: 1 - len(sys.argv)], *arguments])
            send_answer(control, ForkAnswer(pid=os.getpid()))
            control.close()
            _become(request, descriptors)
            sys.argv[1:] = arguments
            return arguments
        descriptors.close()


def _check_fitness() -> None:
    if reason := why_unfit():
        print(reason, file=sys.stderr)
        sys.exit(EXIT_UNFIT)


def why_unfit() -> str:
    """Return what a forked worker would inherit in a broken state, or an empty text."""
    if (num_threads := len(os.listdir("/proc/self/task"))) > 1:
        return f"importing the libraries started {number_of(num_threads - 1, 'thread')}"
    if any(map(_is_gpu, Path("/proc/self/fd").iterdir())):
        return "importing the libraries opened a GPU"
    return ""


def _is_gpu(descriptor: Path) -> bool:
    try:
        return os.readlink(descriptor).startswith("/dev/nvidia")
    except OSError:  # the descriptor of the listing itself
        return False


def _freeze() -> None:
    """Exclude what is there from garbage collection: a collection would write to the pages that workers share."""
    gc.collect()
    gc.freeze()


def _fork_twice(front: int, control: socket.socket) -> bool:
    """Return False in the server. Return True in the new worker, once it is a child of the front."""
    try:
        between = os.fork()
    except OSError as error:
        send_answer(control, ForkAnswer(error=f"it cannot fork: {error.strerror}"))
        return False
    if between:
        if status := os.waitpid(between, 0)[1]:
            send_answer(control, ForkAnswer(error=f"the second fork failed, status {status}"))
        return False
    between = os.getpid()
    try:
        if os.fork():
            os._exit(0)
    except OSError:
        os._exit(1)
    while os.getppid() == between:
        time.sleep(REPARENTED_POLL_S)
    if os.getppid() != front:
        os._exit(EXIT_ORPHANED)
    os.setsid()
    return True


def _arguments(request: ForkRequest, descriptors: WorkerDescriptors) -> list[str]:
    ends = ["--link-fd", str(descriptors.link), "--notes-fd", str(descriptors.notes)]
    return [request.kind, *ends, *request.arguments]


def _become(request: ForkRequest, descriptors: WorkerDescriptors) -> None:
    """Make this process what it would be if the worker had been started as a program."""
    os.dup2(descriptors.stdout, 1)
    os.dup2(descriptors.stderr, 2)
    for descriptor in {descriptors.stdout, descriptors.stderr}:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request.environment)
    num_threads = int(os.environ["OMP_NUM_THREADS"])
    if num_threads != torch.get_num_threads():
        torch.set_num_threads(num_threads)
    _set_openblas_threads(int(os.environ.get("OPENBLAS_NUM_THREADS", num_threads)))
    # Otherwise all workers would draw the same numbers.
    np.random.seed()
    torch.default_generator.seed()
    importlib.invalidate_caches()  # packages may have been installed
    atexit.register(gc.unfreeze)  # libraries would report what is never collected as their leaks


def _set_openblas_threads(num_threads: int) -> None:
    """Do what the environment does when numpy is imported. The server itself must not have OpenBLAS's threads."""
    num_threads = min(num_threads, len(os.sched_getaffinity(0)))
    for path in {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "openblas" in line}:
        library = ctypes.CDLL(path)
        if setter := next((name for name in OPENBLAS_SETTERS if hasattr(library, name)), ""):
            getattr(library, setter)(num_threads)


def _show_command_line(words: list[str]) -> None:
    """Write another command line over this process's own, for `ps`. It is cut where the first one ended."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[ARGUMENTS_START - 2]), int(fields[ARGUMENTS_END - 2])
    text = "".join(f"{word}\0" for word in words).encode()[: end - start - 1]
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)
