"""A private server as a child process, here a stand-in package that speaks the same few lines."""

import os
import time
from pathlib import Path

import pytest

import manyview

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


def test_a_server_that_never_serves_is_given_up_and_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manyview._local._STOP_S", 0.2)
    start = time.monotonic()
    with pytest.raises(manyview.Unavailable, match=r"did not start within 0.3 s; its log is empty"):
        manyview.local(tmp_path, env=stand_in(tmp_path, SLEEPS), start_timeout_s=0.3)
    assert time.monotonic() - start < 5
