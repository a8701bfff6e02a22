"""The end of what a child process writes, in a file that does not grow without bound."""

import subprocess
import sys
import time

import pytest

from manyview._stderr_tail import KEPT_BYTES, MAX_BYTES, StderrTail

LINE = "a line of fifty characters, and a number at its end"


def write(tail: StderrTail, first: int, count: int) -> None:
    program = f"import sys\nfor n in range({first}, {first + count}): print({LINE!r}, n, file=sys.stderr)"
    subprocess.run([sys.executable, "-c", program], stderr=tail.fileno(), check=True)


def test_the_last_lines_outlive_a_cut_and_what_comes_later_follows_them() -> None:
    tail = StderrTail()
    write(tail, 0, 50_000)
    assert tail.num_bytes > 2_000_000
    tail.cut()
    assert tail.num_bytes <= KEPT_BYTES
    assert tail.last_lines(2) == [f"{LINE} 49998", f"{LINE} 49999"]
    write(tail, 50_000, 1)
    assert tail.num_bytes <= KEPT_BYTES + 100
    assert tail.last_lines(2) == [f"{LINE} 49999", f"{LINE} 50000"]
    tail.close()


def test_a_child_that_never_stops_writing_does_not_fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manyview._stderr_tail._EVERY_S", 0.01)
    tail = StderrTail()
    write(tail, 0, 50_000)
    while tail.num_bytes > MAX_BYTES:
        time.sleep(0.01)
    assert len(tail.last_lines(100)) == 100
    tail.close()


def test_a_closed_tail_has_no_file_and_can_be_closed_again() -> None:
    tail = StderrTail()
    tail.close()
    tail.close()
    with pytest.raises(ValueError, match="closed file"):
        tail.fileno()
