"""docs/performance.md shows the rounds that were measured, and the tables compute what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.results import Results
from benchmarks.simclr.plan import TRAININGS, sides, trial_key, trials
from benchmarks.simclr.report import rounds_table, settings_table

PAGE = (Path(__file__).parents[3] / "docs" / "performance.md").read_text()
CELLS = Results("simclr").cells()


def test_the_page_shows_the_tables_of_the_results() -> None:
    measured = any(cell["key"]["part"] == "round" for cell in CELLS)
    assert ("none yet: no turn was measured" in PAGE) == (not measured)
    if measured:
        for table in (rounds_table(CELLS), settings_table(CELLS)):
            assert f"\n{table}\n" in PAGE


def turn(name: str, precision: str, rate: float) -> dict[str, Any]:
    return {
        "name": name,
        "precision": precision,
        "images_per_second": rate,
        "cpu_ms_per_image": 2e3 / rate,
        "network_ms_per_image": 500 / rate,
        "matrix_fraction": 0.6,
        "others": 0.25,
    }


def round_of(**rates: float) -> dict[str, Any]:
    names = {"job": "job", "shipped": "lightly as shipped", "tuned": "lightly tuned"}
    turns = [turn(names[name], "float32", rate) for name, rate in rates.items()]
    return {"key": {"part": "round", "network": "resnet18"}, "values": {"turns": turns}}


def test_a_side_is_compared_within_its_rounds() -> None:
    cells = [
        round_of(job=30.0, shipped=10.0, tuned=20.0),
        round_of(job=40.0, shipped=20.0, tuned=25.0),
        round_of(job=50.0, shipped=12.5, tuned=20.0),
    ]
    job, shipped, tuned = rounds_table(cells).splitlines()[2:]
    start = "| resnet18, 64 px | job | float32 | 40.0 | 30.0 to 50.0 | 3.20 (2.00) | 2.00 (1.50) | 50.0 | 16.7 "
    assert job == f"{start}| 50 % | 60 % | 0.2 | 3 |"
    assert "| 12.5 | 10.0 to 20.0 |  | 0.62 (0.50) |" in shipped
    assert "| 20.0 | 20.0 to 25.0 | 1.60 (1.25) |  |" in tuned


def test_the_settings_are_the_fastest_of_the_trials() -> None:
    training, shipped = TRAININGS["resnet50"], sides(True)[2]
    cells = [
        {"key": trial_key(training, shipped, setting), "values": {"images_per_second": rate}}
        for setting, rate in zip(trials(shipped), (1.0, 3.0, 2.0, 1.0, 1.0, 1.0), strict=True)
    ]
    assert settings_table(cells).splitlines()[2:] == ["| resnet50, 224 px | lightly as shipped | float32, 1 worker |"]
