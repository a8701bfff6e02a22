"""The table shows medians over the rounds, and compares the rates of rounds that both sides have."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from benchmarks.peers.plan import CANDIDATES, MANYVIEW
from benchmarks.peers.report import HEADER, batching_table, best_table, report, rounds_table, sides_table


def cell(side: str, number: int, rate: float, p99_ms: float | None = 9.0, errors: int = 0) -> dict[str, Any]:
    key = {"part": "round", "side": side, "image_size": 64, "number_format": "float32", "round": number}
    level = {"callers": 8, "images_per_second": rate, "p50_ms": 5.0, "p99_ms": p99_ms, "server_cpu_ms": 4.0,
             "client_cpu_ms": 1.0, "others": 0.1, "errors": errors}  # fmt: skip
    return {"key": key, "values": {"levels": [level]}}


def rows(text: str) -> list[list[str]]:
    return [[part.strip() for part in line.split("  ") if part.strip()] for line in text.splitlines()[2:]]


def test_a_row_holds_the_medians_and_the_share_of_manyviews_rate() -> None:
    cells = [cell(MANYVIEW, number, rate) for number, rate in enumerate([90, 100, 400])]
    cells += [cell("mosec", number, rate, p99_ms=rate) for number, rate in enumerate([40, 50, 60])]
    ours, theirs = rows(rounds_table(cells))
    assert ours == ["64", "float32", "8", MANYVIEW, "100.0", "1.00", "5.0", "9.0", "4.0", "1.0", "0.10", "0", "3"]
    assert theirs == ["64", "float32", "8", "mosec", "50.0", "0.50", "5.0", "50.0", "4.0", "1.0", "0.10", "0", "3"]
    assert len(ours) == len(HEADER)


def test_rates_are_compared_over_the_rounds_of_both_sides() -> None:
    cells = [cell(MANYVIEW, 0, 100), cell(MANYVIEW, 1, 300), cell("ray", 1, 150), cell("mosec", 2, 7)]
    found = {row[3]: row[4:6] for row in rows(rounds_table(cells))}
    assert found == {MANYVIEW: ["200.0", "1.00"], "ray": ["150.0", "0.50"], "mosec": ["7.0", "-"]}


def test_errors_are_added_up_and_a_level_without_answers_shows() -> None:
    cells = [cell("bentoml", 0, 0.0, p99_ms=None, errors=3), cell("bentoml", 1, 0.0, p99_ms=None, errors=4)]
    (row,) = rows(rounds_table(cells))
    assert row[4:6] == ["0.0", "-"]
    assert row[7] == "inf"
    assert row[-2:] == ["7", "2"]


def test_the_best_batching_is_marked() -> None:
    def trial(at: int, rates: list[float]) -> dict[str, Any]:
        key = {"part": "sweep", "side": "mosec", "image_size": 224, "batching": asdict(CANDIDATES["mosec"][at])}
        return {"key": key, "values": {"levels": [{"images_per_second": one} for one in rates]}}

    found = rows(batching_table([trial(0, [10.0, 20.0]), trial(1, [20.0, 40.0])]))
    assert found == [
        ["224", "mosec", CANDIDATES["mosec"][0].label, "10.0, 20.0", "14.1"],
        ["224", "mosec", CANDIDATES["mosec"][1].label, "20.0, 40.0", "28.3", "best"],
    ]


def test_the_short_table_has_a_column_for_each_side() -> None:
    cells = [cell(MANYVIEW, 0, 100.0), cell("ray", 0, 50.04, errors=2), cell("ray", 1, 50.04)]
    (row,) = rows(sides_table(cells))
    assert row == ["64", "float32", "8", "100.0 (5, 9)", "-", "-", "-", "-", "50.0 (5, 9)!"]


def test_a_peer_whose_batching_was_not_tried_has_a_dash() -> None:
    assert rows(best_table([])) == [["64", "-", "-", "-", "-"], ["224", "-", "-", "-", "-"]]


def test_without_cells_there_are_headers_alone() -> None:
    assert report([]).splitlines()[0].split() == " ".join(HEADER).split()
