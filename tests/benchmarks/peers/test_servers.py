"""A server ends with all its processes, and one that does not start says why."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmarks.peers.environments import ROOT
from benchmarks.peers.plan import PEERS
from benchmarks.peers.servers import ROOT_OF_SERVERS, free_port, peer_command, stop, wait_until_it_listens

STUBBORN = """
import signal, subprocess, sys
signal.signal(signal.SIGINT, lambda *_: sys.exit())
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
signal.pause()
"""


def is_running(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_each_peer_has_a_program() -> None:
    for peer in PEERS:
        command = peer_command(peer, 1234)
        assert f"/{peer}/" in command[0]
        assert (ROOT_OF_SERVERS / f"{peer}_server.py").exists()


def test_stopping_ends_the_processes_that_a_server_leaves() -> None:
    command = [sys.executable, "-c", STUBBORN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        stop(process)
        deadline = time.monotonic() + 20
        while is_running(child) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_running(child)


TERMINATED = """
import sys
from benchmarks.peers import __main__ as program
from benchmarks.peers.servers import stop
import contextlib, signal, subprocess

@contextlib.contextmanager
def serving(*_):
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    server = subprocess.Popen(sleep, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        print(server.pid, flush=True)
        signal.pause()
        yield
    finally:
        stop(server)

program.serving = serving
program.await_quiet = lambda limit_s: None
program.prepare = lambda *_: None
program.RESULTS = program.Results("peers", program.Path(sys.argv[1]))
sys.argv = ["peers", "measure", "--images", "shirts", "--sides", "manyview"]
program.main()
"""


def test_a_program_that_is_terminated_stops_its_server(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TERMINATED, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        server = int(process.stdout.readline())
        process.terminate()
        assert process.communicate(timeout=50)[1] == b"terminated\n"
        assert process.returncode == 1
    assert not is_running(server)


def test_a_server_that_ends_shows_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen([sys.executable, "-c", "print('no weights')"], stdout=output) as one,
    ):
        one.wait()
        with pytest.raises(SystemExit, match="no weights"):
            wait_until_it_listens(one, free_port(), log)
