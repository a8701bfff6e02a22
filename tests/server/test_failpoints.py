from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from manyview_server import failpoints


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(failpoints.VARIABLE, str(tmp_path))
    failpoints._directory.cache_clear()
    yield tmp_path
    failpoints._directory.cache_clear()


def test_without_the_variable_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "place").write_text("kill")
    failpoints._directory.cache_clear()
    monkeypatch.delenv(failpoints.VARIABLE, raising=False)
    assert failpoints.reach("place") == ""
    failpoints._directory.cache_clear()


def test_an_action_is_done_once_at_its_key_unless_it_stays(directory: Path) -> None:
    (directory / "place@3").write_text("nan")
    assert [failpoints.reach("place", key) for key in (2, 3, 3)] == ["", "nan", ""]
    (directory / "place").write_text("nan always")
    assert [failpoints.reach("place", key) for key in (1, 2)] == ["nan", "nan"]
    assert failpoints.reach("elsewhere") == ""


def test_errors_are_raised(directory: Path) -> None:
    (directory / "place").write_text(f"errno {errno.ENOSPC}")
    with pytest.raises(OSError, match="No space left"):
        failpoints.reach("place")
    (directory / "place").write_text("memory")
    with pytest.raises(MemoryError):
        failpoints.reach("place")


@pytest.mark.parametrize(("action", "number"), [("kill", signal.SIGKILL), ("segv", signal.SIGSEGV)])
def test_a_process_dies_of_its_signal(directory: Path, action: str, number: int) -> None:
    (directory / "place@7").write_text(action)
    program = "from manyview_server import failpoints; failpoints.reach('place', 7)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -number
    assert not list(directory.iterdir())


def test_holding_lasts_until_the_file_is_gone(directory: Path) -> None:
    (directory / "place").write_text("hold")
    waiting = threading.Thread(target=failpoints.reach, args=("place",))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    (directory / "place").unlink()
    waiting.join(10)
    assert not waiting.is_alive()
