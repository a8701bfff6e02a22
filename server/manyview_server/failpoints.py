"""Places at which a test makes a worker fail. Without MANYVIEW_FAILPOINTS this module does nothing.

The variable names a directory. A file "PLACE@KEY", or "PLACE" for any key, holds an action, which is done when the
place is reached. It is done once over all processes, because the process that removes the file acts. With " always"
after the action, the file stays.

    kill                 SIGKILL to this process           kill_parent    to the process that started it
    segv, stop           SIGSEGV, SIGSTOP to this process  sleep SECONDS  this thread alone
    errno NUMBER         raises that OSError               memory         raises MemoryError
    burn SECONDS         one C call that takes about this much CPU time and never releases the interpreter lock
    hold                 this thread waits until the file is gone
    anything else        is returned to the caller, which knows what to do
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from pathlib import Path

VARIABLE = "MANYVIEW_FAILPOINTS"
ALWAYS = " always"
HOLD = "hold"
HOLD_POLL_S = 0.01
BURNT_PER_S = 40_000_000
"""Numbers that one core adds in a second, roughly."""
SIGNALS = {"kill": signal.SIGKILL, "segv": signal.SIGSEGV, "stop": signal.SIGSTOP}


def reach(place: str, key: object = "") -> str:
    """Do what is asked for here; gives an action that is the caller's, or ""."""
    directory = _directory()
    if directory is None:
        return ""
    for file in (directory / f"{place}@{key}", directory / place):
        if action := _take(file):
            return _act(action)
    return ""


@functools.cache
def _directory() -> Path | None:
    return Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def _take(file: Path) -> str:
    try:
        action = file.read_text().strip()
        if action != HOLD and not action.endswith(ALWAYS):
            file.unlink()
    except FileNotFoundError:
        return ""
    while action == HOLD and file.exists():
        time.sleep(HOLD_POLL_S)
    return "" if action == HOLD else action.removesuffix(ALWAYS)


def _act(action: str) -> str:
    name, _, value = action.partition(" ")
    match name:
        case "kill" | "stop":
            os.kill(os.getpid(), SIGNALS[name])
        case "segv":  # of this thread, as a real one would be: it goes no further
            signal.pthread_kill(threading.get_ident(), SIGNALS[name])
        case "kill_parent":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)  # this process follows its parent
        case "sleep":
            time.sleep(float(value))
        case "burn":
            sum(range(int(float(value) * BURNT_PER_S)))
        case "errno":
            raise OSError(int(value), os.strerror(int(value)))
        case "memory":
            raise MemoryError("a failpoint says so")
        case _:
            return action
    return ""
