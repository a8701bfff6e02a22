"""The CPU seconds of a server include those of its processes, living and reaped."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from benchmarks.peers.usage import await_quiet, machine_cpu_s, tree_cpu_s

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BURN!r}])
program = {BURN!r} + "print('burnt', flush=True)\\ninput()"
child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
sys.stdin.read()
child.communicate(b"x")
"""


def test_descendants_count_while_they_live_and_after_they_were_reaped() -> None:
    machine_s = machine_cpu_s()
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"burnt\n"
        assert tree_cpu_s(parent.pid) >= 0.55
        assert tree_cpu_s(os.getpid()) >= 0.55
        parent.communicate(b"")
    assert machine_cpu_s() - machine_s >= 0.55


def test_waiting_for_a_quiet_machine_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    await_quiet(60, cores=1000)
    await_quiet(1.5, cores=-1)
    assert time.monotonic() - began < 20


def test_a_process_that_does_not_exist_used_nothing() -> None:
    assert tree_cpu_s(2**30) == 0
