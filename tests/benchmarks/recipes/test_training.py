"""A training ends with its budget of CPU time, and its features are measured on images that it did not see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.recipes.images import HELD_OUT, TRAIN, StoredImages
from PIL import Image

from benchmarks.recipes import images, training

TINY = {"backbone": "resnet9", "backbone_width": 0.125, "image_size": 16, "batch_size": 16, "precision": "float32"}
BUDGET_S = 2.0


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredImages:
    """48 training images and 16 held-out ones, of two classes of brightness."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for part, count in ((TRAIN, 24), (HELD_OUT, 8)):
        for label, bright in (("dark", 0), ("light", 150)):
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(bright, bright + 100, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / label / f"{number}.png")
    return images.store(folder, tmp_path_factory.mktemp("stored") / "dataset")


def test_the_parts_are_stored_with_the_same_labels(stored: StoredImages) -> None:
    for part, count in ((stored.train, 24), (stored.held_out, 8)):
        assert np.bincount(part["label"]).tolist() == [count, count]
    assert not set(stored.train["image_id"]) & set(stored.held_out["image_id"])


def test_a_training_uses_its_cpu_time_and_no_more(stored: StoredImages, tmp_path: Path) -> None:
    values = training.measure(stored, "simclr", TINY, BUDGET_S, tmp_path)
    assert BUDGET_S - 0.3 < values["cpu_s"] < BUDGET_S + 0.5
    assert values["steps"] > 10
    assert values["epochs"] == pytest.approx(values["steps"] / 3, abs=0.01)
    assert values["threads"] == 1
    assert values["config"]["backbone_width"] == TINY["backbone_width"]


def test_without_time_the_network_stays_untrained(stored: StoredImages, tmp_path: Path) -> None:
    values = training.measure(stored, "simclr", TINY, 0, tmp_path)
    assert (values["steps"], values["epochs"], values["cpu_s"]) == (0, 0, 0)
    assert values["raw_knn_top1"] == 1  # brightness tells the classes apart
    assert 0 <= values["knn_top1"] <= 1
