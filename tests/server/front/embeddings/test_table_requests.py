"""The changes after which rows of embeddings are computed again."""

from __future__ import annotations

import os
from pathlib import Path

from manyview_server.configuration.networks.preprocessing import SUFFIX
from manyview_server.front.embeddings.table_requests import _spec
from manyview_server.messages.embedding import ModelKey


def digest(weights: Path | None, backbone: str = "resnet9") -> str:
    model = ModelKey(
        name=f"backbones/{backbone}",
        checkpoint_dir="",
        backbone=backbone,
        weights_file=str(weights or ""),
        output="backbone",
    )
    return _spec(model, 8, ("torch 2",), "float32").digest


def test_rows_are_computed_again_when_the_operator_replaces_weights_or_the_file_beside_them(tmp_path: Path) -> None:
    weights, beside = tmp_path / "mine.safetensors", tmp_path / f"mine{SUFFIX}"
    weights.write_bytes(b"1")
    found = [digest(None), digest(weights)]
    beside.write_text("{")  # whatever it says: the embedder reads it
    found.append(digest(weights))
    assert digest(weights) == found[-1]
    os.utime(beside, ns=(1, 1))
    found.append(digest(weights))
    weights.write_bytes(b"22")
    found.append(digest(weights))
    assert len(set(found)) == len(found)
