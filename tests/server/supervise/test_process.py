"""A worker process starts, talks, dies when it must, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import errno
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from manyview_server.link.frames import LinkClosed
from manyview_server.messages.message import Hello
from manyview_server.messages.training import StartTraining, TrainingStarted
from manyview_server.supervise.process import WorkerProcess, describe_exit, reap
from support.learning.forked import children
from support.service.descriptors import open_descriptors

SHELL = (sys.executable, "-S", "-c")


async def test_a_worker_says_hello_and_exits_when_its_link_is_closed(scripted: Any) -> None:
    process = await WorkerProcess.start("embedder", num_threads=1, command=scripted())
    async with asyncio.timeout(10):
        first = await process.link.receive()
    assert isinstance(first, Hello)
    assert first.pid == process.pid
    assert process.running
    assert await process.stop(grace_s=10) == 3
    assert not process.running


async def test_a_worker_that_does_not_go_is_killed_with_its_children() -> None:
    program = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '600']); print(p.pid); time.sleep(600)"
    process = await WorkerProcess.start("x", num_threads=1, command=(*SHELL, program), capture_stdout=True)
    while not process.stdout.strip():
        await asyncio.sleep(0.01)
    grandchild = int(process.stdout)
    assert await process.stop(grace_s=0.05) == -signal.SIGKILL
    await gone(grandchild)


async def test_children_of_a_worker_that_died_by_itself_are_killed() -> None:
    program = "import subprocess, os; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); os._exit(7)"
    process = await WorkerProcess.start("x", num_threads=1, command=(*SHELL, program), capture_stdout=True)
    assert await process.wait() == 7
    await gone(int(process.stdout))
    await process.stop()


async def gone(pid: int) -> None:
    """Wait until a process that we did not start is dead; where no init reaps it, it stays a zombie."""
    async with asyncio.timeout(5):
        while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
            await asyncio.sleep(0.01)


async def test_the_last_64_kb_that_a_worker_printed_are_kept() -> None:
    program = "import sys; sys.stderr.write('a' * 200_000 + 'the end'); sys.stdout.write('out')"
    process = await WorkerProcess.start("x", num_threads=1, command=(*SHELL, program))
    assert await process.wait() == 0
    assert len(process.stderr_tail) == 64 << 10
    assert process.stderr_tail.endswith("the endout")
    await process.stop()


async def test_messages_sent_before_death_are_still_received(scripted: Any) -> None:
    process = await WorkerProcess.start("trainer", num_threads=1, command=scripted(trainer={"steps": 0}))
    async with asyncio.timeout(10):
        await process.link.receive()
        await process.link.send(
            StartTraining(
                train_job="j",
                attempt=1,
                settings={},
                dataset_dir="",
                checkpoint_dir="/dev/null/no-folder",
                resume_from="",
                device="cpu",
                num_threads=1,
                cache_bytes=0,
            )
        )
        await process.wait()
        assert isinstance(await process.link.receive(), TrainingStarted)
        with pytest.raises(LinkClosed):
            await process.link.receive()
    assert "NotADirectoryError" in process.stderr_tail
    await process.stop()


async def test_a_program_that_is_missing_is_an_oserror_and_leaks_nothing() -> None:
    before = open_descriptors()
    with pytest.raises(OSError, match="no-such-program"):
        await WorkerProcess.start("x", num_threads=1, command=("/no-such-program",))
    await asyncio.sleep(0.01)
    assert open_descriptors() <= before


@pytest.mark.parametrize(("call", "failing"), [("pipe", 2), ("pidfd_open", 1)])
async def test_a_start_that_finds_no_descriptor_leaves_no_process_and_no_descriptor(
    monkeypatch: pytest.MonkeyPatch, call: str, failing: int
) -> None:
    await (await WorkerProcess.start("x", num_threads=1, command=(*SHELL, ""))).stop()
    await asyncio.sleep(0.01)
    before, processes = open_descriptors(), children()
    original, calls = getattr(os, call), itertools.count(1)

    def limited(*arguments: Any) -> Any:
        if next(calls) == failing:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return original(*arguments)

    monkeypatch.setattr(os, call, limited)
    with pytest.raises(OSError, match="Too many open files"):
        await WorkerProcess.start("x", num_threads=1, command=(*SHELL, "input()"), capture_stdout=True)
    monkeypatch.undo()
    await asyncio.sleep(0.01)
    gc.collect()
    assert open_descriptors() <= before
    assert children() == processes


async def test_a_worker_inherits_its_link_and_its_notes_and_nothing_else() -> None:
    program = "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[3:])"
    process = await WorkerProcess.start("x", num_threads=1, command=(*SHELL, program), capture_stdout=True)
    await process.wait()
    fds = eval(process.stdout)
    assert len(fds) == 3, "the link, the notes, and the listing of the folder itself"
    await process.stop()


async def test_threads_are_told_through_the_environment() -> None:
    program = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['OMP_WAIT_POLICY'])"
    process = await WorkerProcess.start("x", num_threads=3, command=(*SHELL, program), capture_stdout=True)
    await process.wait()
    assert process.stdout.split() == ["3", "passive"]
    await process.stop()


async def test_fifty_starts_and_kills_leave_no_zombie_descriptor_or_thread() -> None:
    command = (*SHELL, "import time; time.sleep(600)")
    await (await WorkerProcess.start("x", num_threads=1, command=command)).stop()
    await asyncio.sleep(0.01)
    before, others = open_descriptors(), (threading.active_count(), children())
    for i in range(50):
        process = await WorkerProcess.start("x", num_threads=1, command=command)
        if i % 2:
            process.kill()
        await process.stop()
    await asyncio.sleep(0.01)
    assert open_descriptors() <= before
    assert (threading.active_count(), children()) == others


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exit status 0"),
        (74, "exit status 74"),
        (-11, "SIGSEGV"),
        (-9, "SIGKILL"),
    ],
)
def test_an_exit_is_described_in_words(status: int, words: str) -> None:
    assert describe_exit(status) == words


def test_the_exit_status_of_a_forked_child_is_negative_for_a_signal() -> None:
    sleeping = subprocess.Popen([*SHELL, "import time; time.sleep(600)"])
    sleeping.kill()
    assert reap(sleeping.pid) == -signal.SIGKILL
    sleeping.returncode = -signal.SIGKILL
