"""Every method of a server: trained, judged, kept and embedded with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import manyview
from manyview_server.learn.methods import METHODS
from support.service.harness import SMALL_JOB, write_photos

pytestmark = pytest.mark.timeout(240)
NARROW = {"projection_hidden_dim": 32, "projection_dim": 32, "prediction_hidden_dim": 16, "num_prototypes": 24}
"""The parts of these that a method has."""


def test_each_is_trained_by_name_and_embeds(client: manyview.Client, tmp_path: Path) -> None:
    write_photos(tmp_path, 96, seed=11)
    paths = sorted(tmp_path.rglob("*.jpg"))[:5]
    dataset = client.upload(tmp_path, dataset="every-method")
    methods = client.methods().methods
    assert set(METHODS) <= {method.name for method in methods}
    jobs = {method.name: client.train(dataset, method.name, epochs=2, config=config(method)) for method in methods}
    for name, job in jobs.items():
        assert job.wait(timeout_s=60).state == "SUCCEEDED", name
        scalars = [event.values for event in job.metrics(kinds=["scalars"], follow=False)]
        assert all(np.isfinite(values["loss"]) for values in scalars if "loss" in values), name
        assert any("knn_top1" in values for values in scalars), name
        model = client.model(job)
        assert client.embed(paths, model=job).array.shape == (5, model.feature_dim), name
        if model.projection_dim:
            projected = client.embed(paths, model=job, output="projection").array
            assert projected.shape == (5, model.projection_dim), name


def config(method: Any) -> dict[str, Any]:
    """A tiny network, with narrow heads."""
    has = method.config_schema["properties"]
    wanted = SMALL_JOB | NARROW | {"evaluation": {"knn_every_epochs": 2}}
    if method.name in ("mae", "simmim"):
        wanted |= {"backbone": "vit_tiny", "backbone_width": 0.3}
    return {name: value for name, value in wanted.items() if name in has}
