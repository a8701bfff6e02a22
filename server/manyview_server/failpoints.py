"""Places at which a test makes a worker fail. Without MANYVIEW_FAILPOINTS this module does nothing.

The variable names a directory. A file "PLACE@KEY", or "PLACE" for any key, holds an action, which is done when the
place is reached. It is done once over all processes, because the process that removes the file acts. With " always"
after the action, the file stays.

    kill, segv, stop     send SIGKILL, SIGSEGV or SIGSTOP to this process
    kill_parent          send SIGKILL to the process that started this one
    errno NUMBER         raise that OSError
    memory               raise MemoryError
    sleep SECONDS        let this thread sleep
    burn SECONDS         make one C call that takes about this much CPU time and never releases the interpreter lock
    hold                 let this thread wait until the file is gone
    anything else        return it to the caller, which knows what to do
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
    """Do the action that a test asks for at this place. Return the action if the caller must do it, otherwise ""."""
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
        case "segv":  # sent to this thread, which stops here as after a real fault
            signal.pthread_kill(threading.get_ident(), SIGNALS[name])
        case "kill_parent":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)  # this process dies soon after its parent
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
