"""The faults that a test can inject on this machine. Each is tried once, small and for real."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest

from support.soak.rounds import soaking

TRY_S = 10.0


def require(*injectors: str) -> None:
    """Skip the test where one of them does not work here, with the reason; under soak that is a failure."""
    for injector in injectors:
        reason = missing(injector)
        if reason and soaking():
            pytest.fail(f"{injector} is needed: {reason}")
        if reason:
            pytest.skip(f"{injector} is needed: {reason}")


@cache
def missing(injector: str) -> str:
    """Why an injector does not work on this machine; "" where it does."""
    return INJECTORS[injector]()


def _root() -> str:
    return "" if os.geteuid() == 0 else "this user is not root"


def _tmpfs() -> str:
    with tempfile.TemporaryDirectory() as place:
        return _tried(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], ["umount", place])


def _loop() -> str:
    with tempfile.TemporaryDirectory() as folder:
        image, place = Path(folder, "image"), Path(folder, "place")
        place.mkdir()
        with image.open("wb") as file:
            file.truncate(1 << 20)
        made = _tried(["mkfs.ext4", "-q", "-F", str(image)])
        return made or _tried(["mount", "-o", "loop", str(image), str(place)], ["umount", str(place)])


def _unshare() -> str:
    return _tried(["unshare", "-m", "true"])


def _strace() -> str:
    """Attaching must work, because the servers of the tests already run when a fault is injected."""
    with tempfile.NamedTemporaryFile("r") as said, subprocess.Popen(
        ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as victim:  # fmt: skip
        inject = ["-e", "trace=write", "-e", "inject=write:error=ENOSPC"]
        try:
            tracer = subprocess.Popen(["strace", "-o", said.name, *inject, "-p", str(victim.pid)],
                                      stderr=subprocess.PIPE, text=True)  # fmt: skip
        except OSError as error:
            victim.kill()
            return str(error)
        with tracer:
            assert tracer.stderr is not None
            line = tracer.stderr.readline()
            victim.communicate(b"x", TRY_S)
            tracer.wait(TRY_S)
        return "" if "INJECTED" in said.read() else f"strace does not inject: {line.strip()}"


def _tried(*commands: Sequence[str]) -> str:
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TRY_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode:
            return f"{' '.join(command)}: {done.stderr.strip()}"
    return ""


INJECTORS: dict[str, Callable[[], str]] = {
    "root": _root,
    "tmpfs": _tmpfs,
    "loop": _loop,
    "unshare": _unshare,
    "strace": _strace,
}
