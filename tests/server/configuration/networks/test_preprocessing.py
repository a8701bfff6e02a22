from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from manyview_server.configuration.networks.preprocessing import DEFAULT, SUFFIX, Preprocessing
from manyview_server.learn.views.recipe import NormalizeSettings

VALUES: dict[str, Any] = {
    "image_size": 224,
    "resize_size": 256,
    "crop": "center",
    "interpolation": "bicubic",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}


def test_it_is_the_same_after_a_way_through_json() -> None:
    one = Preprocessing.from_json(VALUES, "somebody")
    assert Preprocessing.from_json(json.loads(json.dumps(one.to_json())), one.source) == one


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"image_size": 0}, "image_size must be an integer from 1 to 4096 \\(got 0\\)"),
        ({"image_size": 224.0}, "image_size must be an integer"),
        ({"resize_size": 100}, "resize_size must be at least image_size, 224 \\(got 100\\)"),
        ({"crop": "border"}, "crop must be squash or center \\(got 'border'\\)"),
        ({"interpolation": "lanczos"}, "interpolation must be bilinear or bicubic"),
        ({"mean": [0.5]}, "mean must be three numbers, one for each channel"),
        ({"mean": ["a", 0.5, 0.5]}, "mean must be three numbers"),
        ({"mean": None}, "mean must be three numbers"),
        ({"std": [0.5, 0, 0.5]}, "std must be three numbers above 0"),
        ({"std": [float("nan"), 1.0, 1.0]}, "std must be three numbers above 0"),
        ({"size": 3}, "has unknown fields: size"),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Preprocessing.from_json(VALUES | changes, "somebody")


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="lacks mean, std"):
        Preprocessing.from_json({k: v for k, v in VALUES.items() if k not in ("mean", "std")}, "somebody")
    with pytest.raises(ValueError, match="must be an object with crop, image_size"):
        Preprocessing.from_json([], "somebody")  # type: ignore[arg-type]


def test_a_file_beside_the_weights_states_it(tmp_path: Path) -> None:
    weights = tmp_path / "mine.v2.safetensors"
    assert Preprocessing.beside(weights) is None
    beside = tmp_path / f"mine.v2{SUFFIX}"
    beside.write_text(json.dumps(VALUES))
    assert Preprocessing.beside(weights) == Preprocessing.from_json(VALUES, f"the server's {beside.name}")
    for text in ("{", "[]", '{"crop": "center"}'):
        beside.write_text(text)
        with pytest.raises(ValueError, match=r"mine\.v2\.preprocessing\.json: "):
            Preprocessing.beside(weights)


def test_our_own_networks_are_normalized_as_jobs_are_by_default() -> None:
    assert (DEFAULT.mean, DEFAULT.std) == (NormalizeSettings().mean, NormalizeSettings().std)
