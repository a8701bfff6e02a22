"""Every method, in this process: trained, judged, kept and embedded with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from manyview_server.learn import methods
from manyview_server.learn.methods import METHODS
from manyview_server.messages.embedding import ModelKey
from manyview_server.messages.training import CheckpointWritten, ScalarsLogged
from manyview_server.store.jobs.model_card import ModelCard
from manyview_server.worker.embedding.model_cache import load
from manyview_server.worker.training.trainer import Trainer
from support.learning import worker_harness
from support.learning.training import FIXED, Sent, losses

NARROW: dict[str, Any] = {
    "evaluation": {"knn_every_epochs": 2},
    "projection_hidden_dim": 32,
    "projection_dim": 32,
    "prediction_hidden_dim": 16,
    "num_prototypes": 24,
    "memory_bank_size": 32,
}
"""Narrow heads: a method takes those of these settings that it has."""
MASKED = {"backbone": "vit_tiny", "backbone_width": 0.3, "decoder_heads": 2, "decoder_depth": 1}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray[Any, Any]]:
    """A data set of 96 images: its directory and its snapshot."""
    directory = tmp_path_factory.mktemp("photos")
    return directory, worker_harness.write_dataset(directory / "dataset", worker_harness.digits(96))


@pytest.mark.parametrize("name", METHODS)
def test_each_is_trained_by_name_and_embeds(
    name: str, photos: tuple[Path, np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    directory, snapshot = photos
    known = METHODS[name].settings.__dataclass_fields__
    wanted = worker_harness.SMALL | FIXED | NARROW | (MASKED if name in ("mae", "simmim") else {})
    resolved = methods.resolve(name, {field: value for field, value in wanted.items() if field in known})
    settings = methods.to_json(resolved)
    sent = Sent()
    start = worker_harness.start_training(directory, snapshot, settings, checkpoint_dir=str(tmp_path))
    assert Trainer(sent, start).train() == "succeeded"
    assert losses(sent)
    assert np.isfinite(list(losses(sent).values())).all()
    assert any("knn_top1" in message.values for message in sent.of(ScalarsLogged))

    written = sent.of(CheckpointWritten)[-1]
    card = ModelCard.from_json(written.model)
    assert card.method == name
    images = torch.from_numpy(np.stack([worker_harness.picture(0, seed) for seed in range(5)])).permute(0, 3, 1, 2)
    widths: dict[Literal["backbone", "projection"], int] = {"backbone": card.feature_dim}
    if card.projection_dim:
        widths["projection"] = card.projection_dim
    for output, width in widths.items():
        key = ModelKey(name="", checkpoint_dir=written.directory, backbone="", weights_file="", output=output)
        rows = load(key, torch.device("cpu")).embed(images)
        assert rows.shape == (5, width)
        assert torch.isfinite(rows).all()
