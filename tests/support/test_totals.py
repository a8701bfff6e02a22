from __future__ import annotations

import json
from pathlib import Path

from totals import Totals


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
