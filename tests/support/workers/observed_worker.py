"""A worker that reports what it can observe about itself: `observed_worker.py KIND --link-fd N --notes-fd M`.

It may be started as a program, or forked by a fork server of its own. It prints a JSON object, and when its link ends,
it exits with status 7.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manyview_server.link.blocking import Link
from manyview_server.link.frames import LinkClosed
from manyview_server.messages.message import Hello
from manyview_server.worker import __main__ as entry
from manyview_server.worker import fork_server

EXIT = 7


def main() -> None:
    arguments = parse(sys.argv[1:])
    if arguments.kind == entry.FORK_SERVER:
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


def observed() -> dict[str, Any]:
    status = Path("/proc/self/status").read_text().splitlines()
    kept = ("SigBlk", "SigIgn", "SigCgt", "Umask", "Seccomp", "NoNewPrivs", "CapEff", "Threads", "Cpus_allowed_list")
    limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {
        "arguments": Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").decode().split("\0"),
        "argv": sys.argv,
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "descriptors": sorted(map(descriptor, os.listdir("/proc/self/fd"))),
        "parent": os.getppid(),
        "leads its group": os.getpgrp() == os.getpid(),
        "leads its session": os.getsid(0) == os.getpid(),
        "status": {line.split()[0]: line.split()[1:] for line in status if line.startswith(kept)},
        "signals": {str(number): str(signal.getsignal(number)) for number in signal.valid_signals()},
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in limits},
        "priority": [os.nice(0), os.sched_getscheduler(0), Path("/proc/self/oom_score_adj").read_text()],
        "torch threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "torch": [str(torch.get_default_dtype()), torch.is_grad_enabled()],
        "filters": [str(filter) for filter in warnings.filters],
        "drawn": [random.getrandbits(60), int(np.random.randint(1 << 60)), torch.initial_seed()],
    }


def descriptor(number: str) -> str:
    """Return the file that a descriptor is open on, without the number of a socket or pipe, and its inheritance."""
    try:
        target = os.readlink(f"/proc/self/fd/{number}").partition(":[")[0]
        return f"{target} {os.get_inheritable(int(number))}"
    except OSError:  # of the listing itself
        return ""


if __name__ == "__main__":
    main()
