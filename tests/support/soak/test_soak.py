from __future__ import annotations

import json

import pytest

import support.soak.soak as soak

INI = """
[pytest]
markers = long
asyncio_default_fixture_loop_scope = function
addopts = -p no:cacheprovider -m "not long"
"""
TESTS = """
import pytest
from support.soak.rounds import rounds


@pytest.mark.parametrize("seed", rounds(1))
def test_kills(seed):
    pass
"""
LONG = """
import pytest


@pytest.mark.parametrize("name", [pytest.param("a", marks=pytest.mark.long), "b"])
def test_trainings(name):
    pass


@pytest.mark.long
def test_skipped():
    pytest.skip("no disk")
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A test of faults and three others of which two are long."""
    pytester.makeini(INI)
    faults = pytester.mkdir("faults")
    (faults / "test_faults.py").write_text(TESTS)
    pytester.makepyfile(test_others=LONG)
    monkeypatch.setattr(soak, "FAULTS", faults)
    monkeypatch.setattr(soak, "TOTALS", faults / "totals.json")
    monkeypatch.delenv("MANYVIEW_SOAK", raising=False)
    return pytester


def run(suite: pytest.Pytester, *arguments: str) -> dict[str, int]:
    return suite.runpytest_inprocess("-p", "support.soak.soak", *arguments).parseoutcomes()


def test_a_usual_run_leaves_long_tests_out_and_counts_no_round(suite: pytest.Pytester) -> None:
    assert run(suite) == {"passed": 2, "deselected": 2}
    assert not soak.TOTALS.exists()


def test_a_soak_runs_faults_in_rounds_and_long_tests_once_until_each_has_passed(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANYVIEW_SOAK", "3")
    assert run(suite, "-m", "") == {"passed": 4, "failed": 1, "deselected": 1}
    counted = json.loads(soak.TOTALS.read_text())["tests"]
    assert {name: (entry["passed"], entry["failed"]) for name, entry in counted.items()} == {
        "test_faults.py::test_kills": ([0, 1, 2], []),
        "test_others.py::test_trainings[a]": ([0], []),
        "test_others.py::test_skipped": ([], [0]),
    }
    monkeypatch.setenv("MANYVIEW_SOAK", "4")
    assert run(suite, "-m", "") == {"passed": 1, "failed": 1, "deselected": 5}, "only what has not passed yet"
