"""The sides take turns with the same training, and lightly gets its fastest setting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from benchmarks.simclr.job import config
from benchmarks.simclr.plan import (
    TRAININGS,
    Side,
    best_setting,
    photographs,
    sides,
    trial_key,
    trial_keys,
    trials,
)
from benchmarks.views.cell import sides as recipe_and_transform

from manyview_server.learn.methods import resolve

TRAINING = TRAININGS["resnet18"]
SHIPPED, TUNED = (side for side in sides(False) if not side.is_job)


def trial_cells(side: Side, rates: Sequence[float]) -> Iterator[dict[str, Any]]:
    for setting, rate in zip(trials(side), rates, strict=False):
        yield {"key": trial_key(TRAINING, side, setting), "values": {"images_per_second": rate}}


def test_every_side_is_there_in_each_format_that_the_cpu_is_good_at() -> None:
    named = [(side.name, side.precision) for side in sides(True)]
    assert named == [
        ("job", "bfloat16"),
        ("job", "float32"),
        ("lightly as shipped", "float32"),
        ("lightly tuned", "bfloat16"),
        ("lightly tuned", "float32"),
    ]
    assert [one for one in named if one[1] == "float32"] == [(side.name, side.precision) for side in sides(False)]


def test_lightly_as_shipped_is_contiguous_float32_with_each_number_of_workers() -> None:
    found = trials(SHIPPED)
    assert {(setting.workers, setting.asleep) for setting in found} == set(product((0, 1, 2), (False, True)))
    assert not any(setting.channels_last or setting.one_pass or setting.kept_heap for setting in found)
    assert {setting.precision for setting in found} == {"float32"}


def test_the_fastest_setting_is_known_once_all_were_tried() -> None:
    cells = [*trial_cells(SHIPPED, [5, 7, 6, 1, 2, 3]), *trial_cells(TUNED, [1, 2, 9])]
    assert best_setting(cells, TRAINING, SHIPPED) == trials(SHIPPED)[1]
    assert best_setting(cells, TRAINING, TUNED) is None
    assert best_setting(cells, TRAININGS["resnet50"], SHIPPED) is None


def test_the_setting_of_a_side_in_float32_may_come_from_bfloat16() -> None:
    fast, slow = sides(True)[3:]
    cells = list(trial_cells(fast, [1, 2, 9, 4, 5, 6, 7, 8, 3]))
    found = best_setting(cells, TRAINING, slow)
    assert found == trials(slow)[2]
    assert best_setting([*cells, *trial_cells(slow, [9] + [1] * 8)], TRAINING, slow) == trials(slow)[0]
    assert best_setting([], TRAINING, slow) is None


def test_no_setting_is_tried_twice() -> None:
    keys = list(trial_keys(TRAINING, True))
    assert len({str(key) for key in keys}) == len(keys) == sum(map(len, map(trials, sides(True)[2:4])))


@pytest.mark.parametrize("training", TRAININGS.values())
def test_a_job_has_the_recipe_of_views_that_lightly_gets(training: Any) -> None:
    settings = resolve("simclr", config(training, "float32"))
    assert settings.views == recipe_and_transform("simclr", training.image_size, peer=False)[0]
    assert settings.batch_size == training.batch_size
    assert training.num_images // training.batch_size == training.steps_per_epoch


def test_the_photographs_come_from_everywhere_in_the_folder(tmp_path: Path) -> None:
    for name in "abcdef":
        (tmp_path / f"{name}.jpg").touch()
    (tmp_path / "note.txt").touch()
    assert [path.stem for path in photographs(tmp_path, 3)] == ["a", "c", "e"]
    with pytest.raises(SystemExit, match="has 6 JPEG files; 7 are needed"):
        photographs(tmp_path, 7)
