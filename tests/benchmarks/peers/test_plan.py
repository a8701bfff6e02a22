"""The sides take turns, and the batching of a peer must be good for few callers and for many."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from benchmarks.peers.plan import CANDIDATES, MANYVIEW, PEERS, best_batching, rate, round_keys, sweep_keys


def trial(peer: str, at: int, rates: list[float], image_size: int = 64) -> dict[str, Any]:
    key = {"part": "sweep", "side": peer, "image_size": image_size, "batching": asdict(CANDIDATES[peer][at])}
    return {"key": key, "values": {"levels": [{"images_per_second": one} for one in rates]}}


def test_the_sides_take_turns_within_each_round() -> None:
    keys = list(round_keys(rounds=2))
    sides = (MANYVIEW, *PEERS)
    assert tuple(key["side"] for key in keys[: len(sides)]) == sides
    assert len({str(key) for key in keys}) == len(keys) == 2 * 2 * 2 * len(sides)
    assert [key["round"] for key in keys] == sorted(key["round"] for key in keys)


def test_every_candidate_is_tried_once_at_each_size_and_the_peers_take_turns() -> None:
    keys = list(sweep_keys())
    assert len({str(key) for key in keys}) == len(keys) == 2 * sum(map(len, CANDIDATES.values()))
    assert [key["side"] for key in keys[:8:2]] == list(PEERS)


def test_the_best_batching_has_the_largest_geometric_mean() -> None:
    cells = [trial("mosec", 0, [10, 40]), trial("mosec", 1, [1, 90]), trial("mosec", 2, [2, 2], image_size=224)]
    cells += [trial("ray", 2, [99, 99]), {"key": {"part": "round", "side": "mosec", "image_size": 64}, "values": {}}]
    assert rate(cells[0]) == pytest.approx(20)
    assert best_batching(cells, "mosec", 64) == CANDIDATES["mosec"][0]
    assert best_batching(cells, "mosec", 224) == CANDIDATES["mosec"][2]
    assert best_batching(cells, "litserve", 64) is None


def test_a_label_says_how_images_and_cores_are_shared() -> None:
    assert CANDIDATES["mosec"][1].label == "8 in 2 ms, 2 x 1"
    assert CANDIDATES["litserve"][3].label == "16 in 5 ms, 1 x 2, fast queue"
