"""Each call measures the cells that are missing, and none twice."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from benchmarks.peers.plan import CANDIDATES, MANYVIEW, PEERS, STUBS, Key, round_keys, sweep_keys
from benchmarks.results import Results

from benchmarks.peers import __main__ as program

LEVELS = [{"callers": 1, "images_per_second": 1.0}]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    found = Results("peers", tmp_path)

    def measure(key: Key, images: Path, seconds: float) -> dict[str, Any]:
        return {"levels": LEVELS, "images": images.name, "seconds": seconds}

    monkeypatch.setattr(program, "RESULTS", found)
    monkeypatch.setattr(program, "report", lambda cells: f"{len(cells)} cells")
    monkeypatch.setattr(program, "measure", measure)
    monkeypatch.setattr(program, "await_quiet", lambda limit_s: None)
    monkeypatch.setattr(program, "prepare", lambda folder, images: None)
    return found


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["peers", *arguments])
    program.main()


def test_a_call_measures_the_next_cells_and_none_twice(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = list(round_keys(rounds=1))
    results.add(wanted[1], {"levels": LEVELS})
    call(monkeypatch, "measure", "--images", "shirts", "--rounds", "1")
    call(monkeypatch, "measure", "--images", "shirts", "--rounds", "1", "--cells", "2", "--seconds", "3")
    assert [cell["key"] for cell in results.cells()] == [wanted[at] for at in (1, 0, 2, 3)]
    assert [cell["values"].get("seconds") for cell in results.cells()] == [None, 8.0, 3.0, 3.0]
    call(monkeypatch, "measure", "--images", "shirts", "--rounds", "1", "--cells", "1000")
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, "measure", "--images", "shirts", "--rounds", "1")
    assert ended.value.code == program.NOTHING_LEFT
    assert len(results.cells()) == len(wanted)


def test_the_sweep_and_the_stubs_have_cells_of_their_own(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, "sweep", "--images", "shirts", "--cells", "3")
    call(monkeypatch, "measure", "--images", "shirts", "--stubs")
    keys = [cell["key"] for cell in results.cells()]
    assert keys[:3] == list(sweep_keys())[:3]
    assert keys[3]["side"] == STUBS


def test_sides_can_be_chosen_and_must_be_known(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, "measure", "--images", "shirts", "--sides", MANYVIEW, "ray", "--cells", "3")
    assert [cell["key"]["side"] for cell in results.cells()] == [MANYVIEW, "ray", MANYVIEW]
    with pytest.raises(SystemExit):
        call(monkeypatch, "measure", "--images", "shirts", "--sides", "abacus")


def test_no_cell_begins_once_the_time_is_over(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, "measure", "--images", "shirts", "--cells", "9", "--minutes", "0")
    assert results.cells() == []


def test_a_number_format_can_be_chosen(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, "measure", "--images", "shirts", "--formats", "bfloat16", "--sides", "ray", "--cells", "2")
    assert [cell["key"]["number_format"] for cell in results.cells()] == ["bfloat16"] * 2


def test_without_a_folder_nothing_is_measured(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, "report")
    with pytest.raises(SystemExit):
        call(monkeypatch, "measure")
    assert results.cells() == []


def test_a_peer_is_measured_with_its_best_batching_and_not_before_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Results("peers", tmp_path)
    monkeypatch.setattr(program, "RESULTS", results)
    key = {**next(iter(round_keys())), "side": PEERS[0]}
    with pytest.raises(SystemExit, match="measure the batching of mosec first"):
        program.measure(key, tmp_path, 1.0)
    best = CANDIDATES[PEERS[0]][2]
    tried = {"part": "sweep", "side": PEERS[0], "image_size": key["image_size"], "batching": asdict(best)}
    results.add(tried, {"levels": LEVELS})
    seen: list[Any] = []

    def serving(*arguments: Any) -> Any:
        seen.extend(arguments)
        raise InterruptedError

    monkeypatch.setattr(program, "serving", serving)
    with pytest.raises(InterruptedError):
        program.measure(key, tmp_path, 1.0)
    assert seen[0] == PEERS[0]
    assert seen[-1] == best


def test_the_queue_is_full_when_it_is_measured() -> None:
    assert program.level(1, 64, 8.0).warm_up_s == 1.0
    assert program.level(128, 224, 8.0).warm_up_s == program.ONE_ROUND_TRIP_S[224] + 1
