from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from manyview_server.learn import backbones
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views.recipe import PipelineSettings, ViewSettings
from manyview_server.worker.training import backbone_check
from manyview_server.worker.training.initial_weights import InitialWeights


def settings(**fields: Any) -> Any:
    """Two views of the whole and two of half the size, which only some methods take."""
    plain = {field: getattr(TrainSettings, field) for field in ("stem", "stem_relu", "patch_size", "embedding_dim")}
    views = ViewSettings(pipelines=(PipelineSettings(count=2), PipelineSettings(count=2, size_fraction=0.5)))
    given = {"backbone": "vit_tiny", "backbone_width": 1 / 3, "image_size": 32, "views": views, **fields}
    return SimpleNamespace(**{**plain, **given})


def test_every_size_of_view_is_shown_to_the_backbone() -> None:
    backbone_check.check(settings(), None)
    backbone_check.check(settings(image_size=64), None)
    with pytest.raises(ValueError, match="image_size: 16 pixels are no multiple of patch_size 32; nearest: 32"):
        backbone_check.check(settings(patch_size=32), None)
    with pytest.raises(ValueError, match=r"torchvision/vit_b_32 does not take images|does not take images of 32 x 32"):
        backbone_check.check(settings(backbone="torchvision/vit_b_32", backbone_width=1.0, image_size=64), None)


def test_weights_are_tried_and_the_generator_is_left_as_it_was(tmp_path: Path) -> None:
    save_file({"odd": torch.zeros(1)}, tmp_path / "odd.safetensors")
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"'odd\.safetensors' does not fit the backbone"):
        backbone_check.check(settings(), InitialWeights.read(tmp_path, "odd.safetensors"))
    assert torch.equal(torch.get_rng_state(), before)


def test_one_line_says_what_is_trained() -> None:
    network = backbones.build("resnet9", width=0.125, image_size=16)
    assert backbone_check.told("resnet9", network) == "backbone resnet9, stem small: 64 features, 77,352 parameters"


def test_no_worker_imports_a_library_of_networks_before_one_is_wanted() -> None:
    code = (
        "import sys; from manyview_server.worker import __main__, describe; describe.describe(); "
        "print({'torchvision', 'timm', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
