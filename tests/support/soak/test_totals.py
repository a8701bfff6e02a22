from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import support.soak.totals as totals_module
from support.soak.totals import Totals


def test_totals_go_on_from_the_file_and_add_up(tmp_path: Path) -> None:
    path = tmp_path / "totals.json"
    Totals(path).add("kills", 0, passed=True, seconds=1.5, figures={"kills": 2, "lost": 0, "max_recovery_ms": 900})
    Totals(path).add("kills", 1, passed=True, seconds=1.5, figures={"kills": 1, "lost": 0, "max_recovery_ms": 1200})
    Totals(path).add("cuts", 0, passed=True, seconds=1, figures={"lost": 1})
    totals = Totals(path)
    assert totals.has_passed("kills", 1)
    assert not totals.has_passed("kills", 2)
    assert totals.summary() == {"rounds": 3, "failed_rounds": 0, "kills": 3, "lost": 1, "max_recovery_ms": 1200}
    assert json.loads(path.read_text())["tests"]["kills"]["seconds"] == 3.0
    assert '"passed": [0, 1],\n' in path.read_text(), "a list is one line"


def test_a_failed_round_stays_listed_and_is_run_again(tmp_path: Path) -> None:
    totals = Totals(tmp_path / "totals.json")
    totals.add("kills", 4, passed=True, seconds=1, figures={})
    totals.add("kills", 4, passed=False, seconds=1, figures={})
    assert not totals.has_passed("kills", 4)
    totals.add("kills", 4, passed=True, seconds=1, figures={})
    assert totals.has_passed("kills", 4)
    assert totals.summary() == {"rounds": 1, "failed_rounds": 1}


def test_processes_that_add_at_once_lose_no_round(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys\n"
        "from support.soak.totals import Totals\n"
        "totals = Totals(pathlib.Path(sys.argv[1]))\n"
        "for seed in range(int(sys.argv[2]), 200, 4):\n"
        "    totals.add('kills', seed, passed=True, seconds=0, figures={'kills': 1})\n"
    )
    path, place = tmp_path / "totals.json", Path(totals_module.__file__).parents[2]
    command = [sys.executable, "-c", program, str(path)]
    processes = [subprocess.Popen([*command, str(first)], cwd=place) for first in range(4)]
    assert [process.wait(30) for process in processes] == [0, 0, 0, 0]
    assert Totals(path).summary() == {"rounds": 200, "failed_rounds": 0, "kills": 200}
