"""Each call measures the cells that are missing, and none twice."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from benchmarks.results import Results
from benchmarks.simclr.plan import TRAININGS, Setting, sides, trial_keys, trials

from benchmarks.simclr import __main__ as program

TRAINING = TRAININGS["resnet18"]
SIDES = [side for side in sides(False) if not side.is_job]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    found = Results("simclr", tmp_path)
    monkeypatch.setattr(program, "RESULTS", found)
    monkeypatch.setattr(program, "report", lambda cells: f"{len(cells)} cells")
    monkeypatch.setattr(program, "fast_bfloat16", lambda: False)
    return found


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["simclr", *arguments])
    program.main()


def measured(key: dict[str, Any], images: Path) -> dict[str, Any]:
    return {"images": images.name}


def test_a_call_measures_the_next_round_and_none_twice(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "measure", measured)
    for _ in range(7):
        call(monkeypatch, "measure", "--images", "shirts")
    assert [(cell["key"]["round"], cell["key"]["network"]) for cell in results.cells()] == [
        (number, network) for number in range(3) for network in TRAININGS
    ]


def test_all_trials_of_a_network_are_measured_within_the_time(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "measure", measured)
    call(monkeypatch, "trials", "--images", "shirts", "--minutes", "0")
    assert results.cells() == []
    call(monkeypatch, "trials", "--images", "shirts", "--network", "resnet18", "--cells", "2")
    call(monkeypatch, "trials", "--images", "shirts", "--network", "resnet18")
    assert [cell["key"] for cell in results.cells()] == list(trial_keys(TRAINING, False))


def test_a_round_tries_what_was_not_tried_and_gives_lightly_its_fastest_setting(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = list(trial_keys(TRAINING, False))
    for rate, key in enumerate(keys[:-1]):
        results.add(key, {"images_per_second": float(rate)})
    given: list[Setting] = []

    def peer_turn(training: Any, setting: Setting, images: Path, **steps: int) -> dict[str, Any]:
        given.append(setting)
        return {"images_per_second": 100.0, **steps}

    monkeypatch.setattr(program, "peer_turn", peer_turn)
    monkeypatch.setattr(program, "job_turn", lambda *arguments: {"images_per_second": 2.0})
    monkeypatch.setattr(program, "network", lambda *arguments: {"network_ms_per_image": 3.0})
    call(monkeypatch, "measure", "--images", "shirts")
    best = [trials(side)[-1] for side in SIDES]
    assert given == [best[1], *best]
    assert results.cells()[-2]["key"] == keys[-1]
    turns = results.cells()[-1]["values"]["turns"]
    assert [turn["name"] for turn in turns] == ["job", "lightly as shipped", "lightly tuned"]
    assert turns[0]["setting"] is None
    assert turns[1] == {
        **asdict(SIDES[0]),
        "setting": asdict(best[0]),
        "images_per_second": 100.0,
        "warm_up": TRAINING.warm_up,
        "steps": TRAINING.steps,
        "network_ms_per_image": 3.0,
    }


def test_lightly_as_shipped_has_the_environment_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    monkeypatch.setenv("HOME", "/home")
    plain, tuned = (program.environment_of(trials(side)[0]) for side in SIDES)
    assert plain["HOME"] == tuned["HOME"] == "/home"
    assert not {"OMP_WAIT_POLICY", "OMP_NUM_THREADS", "MALLOC_TOP_PAD_"} & set(plain)
    assert tuned["OMP_NUM_THREADS"] == "2"
    assert tuned["MALLOC_MMAP_MAX_"] == "0"


def test_without_a_folder_nothing_is_measured(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, "report")
    with pytest.raises(SystemExit):
        call(monkeypatch, "measure")
    assert results.cells() == []
