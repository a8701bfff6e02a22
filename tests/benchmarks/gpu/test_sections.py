from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from benchmarks.gpu.document import Document, failures, figures_table, sections_table
from benchmarks.gpu.plan import ROWS, RUN_S, SECTIONS
from benchmarks.gpu.sections import EXIT_CUT, EXIT_FAILED, OutOfTime, Record, Runner, Section, interrupted_after

from benchmarks.gpu import sections

HEAD = {"card": "a card", "torch": "2.11.0", "quick": False}


class Clock:
    """Time that passes when a section says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """The argument of a fake section."""

    def __init__(self, record: Record, ends_at: float, clock: Clock) -> None:
        self.record, self.ends_at, self.clock = record, ends_at, clock


def good(bench: Bench) -> None:
    bench.clock.now += 10
    bench.record.checks.append({"name": "a check", "ok": True, "detail": ""})
    bench.record.figures.append(
        {"row": "G5", "what": "a rate", "value": 1234.5, "unit": "images/s", "conditions": {"B": 8}}
    )


def wrong(bench: Bench) -> None:
    good(bench)
    bench.record.checks.append({"name": "another check", "ok": False, "detail": "0.2, at most 0.1"})


def broken(bench: Bench) -> None:
    good(bench)
    raise ZeroDivisionError("a bug")


def slow(bench: Bench) -> None:
    good(bench)
    bench.clock.now = bench.ends_at
    raise OutOfTime


def plan(monkeypatch: pytest.MonkeyPatch, **functions: Callable[[Bench], None]) -> list[Section]:
    """A section for each function."""
    monkeypatch.setattr(Section, "function", lambda self: functions[self.call])
    return [Section(name=name, call=name, budget_s=100) for name in functions]


def run(chosen: list[Section], document: Document, seconds: float = 480.0) -> int:
    clock = Clock()
    runner = Runner(document, seconds, clock=clock, limit=lambda _: nullcontext(), say=lambda _: None)
    return runner.run(chosen, lambda record, ends_at: Bench(record, ends_at, clock))


def outcomes(document: Document) -> dict[str, str]:
    return {each["section"]: each["status"] for each in json.loads(document.path.read_text())["sections"]}


def test_the_plan_covers_every_row_and_names_functions_that_exist() -> None:
    assert len({section.name for section in SECTIONS}) == len(SECTIONS)
    assert {row for section in SECTIONS for row in section.rows} | {"G2", "G3"} == set(ROWS)
    for section in SECTIONS:
        module, _, function = section.call.rpartition(".")
        source = (Path(sections.__file__).parent / f"{module.replace('.', '/')}.py").read_text()
        assert f"def {function}(bench: Bench) -> None:" in source
        assert 0 < section.budget_s < RUN_S


def test_a_section_that_fails_says_why_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    document = Document(tmp_path / "gpu.json", HEAD)
    assert run(plan(monkeypatch, broken=broken, wrong=wrong, good=good), document) == EXIT_FAILED
    assert outcomes(document) == {"broken": "failed", "wrong": "failed", "good": "ok"}
    lines = "\n".join(failures(document.content))
    assert "ZeroDivisionError: a bug" in lines
    assert "wrong: another check: 0.2, at most 0.1" in lines


def test_what_was_found_before_a_failure_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    document = Document(tmp_path / "gpu.json", HEAD)
    run(plan(monkeypatch, broken=broken), document)
    assert document.sections[0]["figures"][0]["value"] == 1234.5


def test_a_run_ends_at_its_deadline_and_says_what_it_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    document = Document(tmp_path / "gpu.json", HEAD)
    chosen = plan(monkeypatch, one=good, two=slow, three=good)
    assert run(chosen, document, seconds=50) == EXIT_CUT
    assert outcomes(document) == {"one": "ok", "two": "out of time", "three": "out of time"}
    assert document.sections[1]["seconds"] == 40  # its share was what was left of the run, less than its budget
    assert "before it started" in document.sections[2]["reason"]


def test_a_run_in_which_everything_passes_exits_with_0(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(plan(monkeypatch, one=good, two=good), Document(tmp_path / "gpu.json", HEAD)) == 0


def test_a_section_whose_packages_are_missing_is_skipped_with_their_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Section, "function", lambda self: good)
    document = Document(tmp_path / "gpu.json", HEAD)
    chosen = [Section(name="service", call="x", budget_s=1, needs=("json", "no_such_module"))]
    assert run(chosen, document) == 0
    assert document.sections[0]["status"] == "skipped"
    assert document.sections[0]["reason"] == "not installed: no_such_module (see --wheels)"


def test_a_run_that_goes_on_repeats_only_what_did_not_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, began = tmp_path / "gpu.json", []

    def counted(bench: Bench) -> None:
        began.append(bench)
        good(bench)

    run(plan(monkeypatch, one=counted, two=broken, three=slow), Document(path, HEAD))
    again = Document(path, HEAD, resume=True)
    assert run(plan(monkeypatch, one=counted, two=good, three=good), again) == 0
    assert outcomes(again) == {"one": "ok", "two": "ok", "three": "ok"}
    assert len(began) == 1


def test_a_run_does_not_resume_the_results_of_another_card(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    Document(path, HEAD).save()
    with pytest.raises(ValueError, match="another machine"):
        Document(path, {**HEAD, "card": "another card"}, resume=True)


def test_the_file_is_whole_after_every_section(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, seen = tmp_path / "gpu.json", []

    def looks(bench: Bench) -> None:
        seen.append(len(json.loads(path.read_text())["sections"]))

    run(plan(monkeypatch, one=good, two=looks, three=looks), Document(path, HEAD))
    assert seen == [1, 2]


def spin(seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        pass


def test_a_section_is_interrupted_when_its_time_is_over() -> None:
    with pytest.raises(OutOfTime), interrupted_after(0.1):
        spin(30)


def test_nothing_comes_after_a_section_that_ended_in_time_and_an_earlier_alarm_stays() -> None:
    earlier, _ = signal.getitimer(signal.ITIMER_REAL)  # pytest's own, for the timeout of this test
    with interrupted_after(0.1):
        pass
    spin(0.2)
    later, _ = signal.getitimer(signal.ITIMER_REAL)
    assert (later > 0) == (earlier > 0)
    assert later <= earlier


def test_the_tables_name_outcomes_and_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    document = Document(tmp_path / "gpu.json", HEAD)
    run(plan(monkeypatch, one=good, two=wrong), document)
    assert "two      failed   10.0     1/2" in sections_table(document.content)
    line: Any = figures_table(document.content).splitlines()[2]
    assert line.split() == ["G5", "a", "rate", "1,234.5", "images/s", "B", "8"]
