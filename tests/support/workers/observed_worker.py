"""A forking worker that imports all that workers do, and reports what it can observe about itself."""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manyview_server.worker import __main__  # noqa: F401
from support.workers import forking_worker


def main() -> None:
    forking_worker.main(observed)


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
