"""No method alarms anybody while it learns: each trained with its defaults on scans of real handwriting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from manyview_server.learn import methods
from manyview_server.learn.methods import METHODS
from manyview_server.messages.training import AlertRaised, ScalarsLogged
from manyview_server.worker.training.trainer import Trainer
from support.learning import worker_harness
from support.learning.training import Sent

EITHER_ALARM = 420
"""Steps after which each alarm can have come: 100 + 300, and two more readings."""
SMALL = {
    "backbone": "resnet9",
    "backbone_width": 0.125,
    "image_size": 16,
    "epochs": 1000,
    "checkpoint_every_epochs": 1000,
    "precision": "float32",
    "memory_format": "channels_last",
    "evaluation": {"knn_every_epochs": 0},
}
WIDE = {"projection_hidden_dim": 512, "projection_dim": 512}
VIT = {"backbone": "vit_tiny", "backbone_width": 0.3, "patch_size": 4, "batch_size": 16}
NEEDED: dict[str, dict[str, Any]] = {
    "barlow_twins": WIDE,
    "vicreg": WIDE,
    "dino": {"projection_hidden_dim": 512, "num_prototypes": 512},
    "mae": VIT | {"decoder_heads": 2, "decoder_depth": 1},
    "simmim": VIT,
}
"""The settings that differ from their defaults: heads of 2,048 take longer than all the rest."""
COMPARES_NO_VECTORS = {"mae", "simmim"}
"""Methods whose loss compares no vectors: they have no projections to watch."""


RUNS = [("moco", EITHER_ALARM, 16), *((name, EITHER_ALARM, 32) for name in METHODS)]
"""Method, steps and images of a batch: one method, then every method in larger batches."""


@pytest.fixture(scope="module")
def handwriting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray[Any, Any]]:
    """1,797 scans of 8 x 8 pixels, each pixel made four, as a data set: its directory and its snapshot."""
    directory = tmp_path_factory.mktemp("handwriting")
    pixels = (load_digits().images * 15.9375).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    images = [(worker_harness.encoded(np.stack([scan] * 3, axis=-1)), -1) for scan in pixels]
    return directory, worker_harness.write_dataset(directory / "dataset", images)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "num_steps", "batch_size"), RUNS)
def test_a_healthy_training_raises_no_alarm(
    name: str, num_steps: int, batch_size: int, handwriting: tuple[Path, np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    directory, snapshot = handwriting
    wanted = SMALL | {"batch_size": batch_size, "max_steps": num_steps} | NEEDED.get(name, {})
    settings = methods.to_json(methods.resolve(name, wanted))
    sent = Sent()
    start = worker_harness.start_training(directory, snapshot, settings, checkpoint_dir=str(tmp_path))
    assert Trainer(sent, start).train() == "succeeded"
    assert sent.of(AlertRaised) == []
    scalars = {message.step: message.values for message in sent.of(ScalarsLogged)}
    first = {1, 2} if name == "moco" else {1}  # its bank is empty at the first step, whose loss is not sent
    assert list(scalars) == sorted({*first, *range(10, num_steps + 1, 10), num_steps})
    assert [step for step, values in scalars.items() if "loss" not in values] == ([1] if name == "moco" else [])
    assert ("projection_std_ratio" in scalars[10]) is (name not in COMPARES_NO_VECTORS)
