"""A private server as a child process, here a stand-in package that speaks the same few lines."""

import os
import sys
import time
from pathlib import Path

import pytest

import manyview
from support.clients.terminal import Terminal

SERVES = """
import json, os, signal, sys, threading
from manyview.testing import FakeServer
stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())
data = sys.argv[sys.argv.index("--data") + 1]
assert sys.argv[1:4] == ["serve", "--listen", "127.0.0.1:0"] and "--exit-with-parent" in sys.argv
open(os.path.join(data, "pid"), "w").write(str(os.getpid()))
with FakeServer() as server:
    print(json.dumps({"event": "serving", "address": server.target, "pid": os.getpid()}), flush=True)
    stopped.wait()
"""
SAYS = """
import json, sys, time
def say(text):
    print(json.dumps({"level": "info", "message": text}), file=sys.stderr, flush=True)
say("starting: opening the data directory")
time.sleep(0.5)
say("something else")
say("starting: listing methods and devices")
time.sleep(0.5)
"""
REFUSES = """
import json, sys
print(json.dumps({"message": "cannot start: cannot listen on 127.0.0.1:0: another process"}), file=sys.stderr)
sys.exit(1)
"""
IS_MISSING = """
import sys
print('manyview-server: error: the server is not installed: torch is missing. Install it', file=sys.stderr)
sys.exit(1)
"""
DIES = "raise ModuleNotFoundError(\"No module named 'torch'\")"
SLEEPS = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


def stand_in(tmp_path: Path, program: str) -> dict[str, str]:
    """The environment of a child for which `python -m manyview_server` runs `program`."""
    package = tmp_path / "stand_in" / "manyview_server"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(program)
    return {**os.environ, "PYTHONPATH": str(package.parent)}


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_server_serves_within_the_block_and_is_gone_after_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with manyview.local(data, env=stand_in(tmp_path, SERVES)) as client:
        pid = int((data / "pid").read_text())
        assert client.upload([b"a"], "pets").num_images == 1
        assert is_running(pid)
    assert not is_running(pid)
    assert data.exists()


def test_a_temporary_folder_is_removed_with_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    env = stand_in(tmp_path, SERVES)
    client = manyview.local(env=env)
    assert len(list(tmp_path.glob("manyview-*/pid"))) == 1
    client.close()
    client.close()
    assert list(tmp_path.glob("manyview-*")) == []


def test_a_server_that_dies_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(manyview.Unavailable, match="exit status 1 before it served") as raised:
        manyview.local(tmp_path, env=stand_in(tmp_path, DIES))
    assert "No module named 'torch'" in str(raised.value)
    assert 'pip install "manyview[server]"' in str(raised.value)
    assert raised.value.reason == "LOCAL_SERVER_FAILED"


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (REFUSES, "the local server cannot start: cannot listen on 127.0.0.1:0: another process"),
        (IS_MISSING, "the local server cannot start: the server is not installed: torch is missing. Install it"),
    ],
)
def test_a_server_that_refuses_to_start_is_quoted(tmp_path: Path, program: str, why: str) -> None:
    with pytest.raises(manyview.Unavailable) as raised:
        manyview.local(tmp_path, env=stand_in(tmp_path, program))
    assert str(raised.value).startswith(why)
    assert "log" not in str(raised.value)
    assert raised.value.reason == "LOCAL_SERVER_FAILED"


def test_the_steps_of_the_start_are_shown_while_it_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    with manyview.local(tmp_path, env=stand_in(tmp_path, SAYS + SERVES)):
        terminal.wait_for(
            "private server: starting, 0 s",
            "private server: opening the data directory, 0 s",
            "private server: listing methods and devices, 0 s",
        )
    terminal.close()


def test_no_step_is_shown_to_somebody_who_wants_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    with manyview.local(tmp_path, env=stand_in(tmp_path, SERVES), progress=False):
        pass
    terminal.close()  # now `shown` has everything
    assert terminal.shown == ""


def test_a_server_that_never_serves_is_given_up_and_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manyview._local._STOP_S", 0.2)
    start = time.monotonic()
    with pytest.raises(manyview.Unavailable, match=r"did not start within 0.3 s; its log is empty"):
        manyview.local(tmp_path, env=stand_in(tmp_path, SLEEPS), start_timeout_s=0.3)
    assert time.monotonic() - start < 5
