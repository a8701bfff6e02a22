from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from manyview_server.learn import backbones, methods
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views.recipe import PipelineSettings, ViewSettings
from manyview_server.worker.training.initial_weights import InitialWeights, check_backbone
from support.learning import worker_harness


def test_a_file_is_known_by_its_name_and_hash(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "deep" / "some.safetensors")
    found = InitialWeights.read(tmp_path, "deep/some.safetensors")
    sha256 = hashlib.sha256((tmp_path / "deep" / "some.safetensors").read_bytes()).hexdigest()
    assert found.to_json() == {"file": "deep/some.safetensors", "sha256": sha256}
    assert torch.equal(found.tensors["a"], torch.ones(2))


def test_a_link_of_the_operators_is_followed(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "elsewhere.safetensors")
    (tmp_path / "weights" / "linked.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    assert set(InitialWeights.read(tmp_path / "weights", "linked.safetensors").tensors) == {"a"}


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("../secret.safetensors", "outside of the server's directory of weights"),
        ("deep/../../secret.safetensors", "outside of the server's directory of weights"),
        ("/etc/secret.safetensors", "outside of the server's directory of weights"),
        ("none.safetensors", "cannot be read on the server: No such file"),
        ("folder.safetensors", "cannot be read on the server: Is a directory"),
        ("text.safetensors", "is not a safetensors file, or is damaged"),
        ("short.safetensors", "is not a safetensors file, or is damaged"),
    ],
)
def test_what_is_no_file_of_weights_is_refused(tmp_path: Path, file: str, why: str) -> None:
    directory = tmp_path / "weights"
    (directory / "folder.safetensors").mkdir(parents=True)
    (directory / "deep").mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "secret.safetensors")
    (directory / "text.safetensors").write_text("weights")
    (directory / "short.safetensors").write_bytes((tmp_path / "secret.safetensors").read_bytes()[:-1])
    with pytest.raises(ValueError, match=why) as refused:
        InitialWeights.read(directory, file)
    assert str(refused.value).startswith(f"backbone_weights: {file!r}")
    assert str(tmp_path) not in str(refused.value)


def test_student_and_teacher_begin_alike(tmp_path: Path) -> None:
    torch.manual_seed(9)
    theirs = backbones.build("resnet9", width=0.125, image_size=16)
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    method = methods.build_method(methods.from_json(worker_harness.settings("moco")), 64)
    InitialWeights.read(tmp_path, "theirs.safetensors").load_into(method)
    weights, state = theirs.state_dict(), method.state_dict()
    for network in ("encoder.backbone.", "teacher.encoder.backbone."):
        assert all(torch.equal(state[network + name], tensor) for name, tensor in weights.items())


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    save_file(backbones.build("resnet9", width=0.25, image_size=16).state_dict(), tmp_path / "wide.safetensors")
    method = methods.build_method(methods.from_json(worker_harness.settings("simclr")), 64)
    with pytest.raises(ValueError, match=r"'wide.safetensors' does not fit the backbone: .* conv1.weight \(16, "):
        InitialWeights.read(tmp_path, "wide.safetensors").load_into(method)


def settings_of(**fields: Any) -> Any:
    """Two views of the whole and two of half the size, which only some methods take."""
    plain = {field: getattr(TrainSettings, field) for field in ("stem", "stem_relu", "patch_size", "embedding_dim")}
    views = ViewSettings(pipelines=(PipelineSettings(count=2), PipelineSettings(count=2, size_fraction=0.5)))
    given = {"backbone": "vit_tiny", "backbone_width": 1 / 3, "image_size": 32, "views": views, **fields}
    return SimpleNamespace(**{**plain, **given})


def test_every_size_of_view_is_shown_to_the_backbone() -> None:
    check_backbone(settings_of(), None)
    check_backbone(settings_of(image_size=64), None)
    with pytest.raises(ValueError, match="image_size: 16 pixels are no multiple of patch_size 32; nearest: 32"):
        check_backbone(settings_of(patch_size=32), None)
    with pytest.raises(ValueError, match=r"torchvision/vit_b_32 does not take images|does not take images of 32 x 32"):
        check_backbone(settings_of(backbone="torchvision/vit_b_32", backbone_width=1.0, image_size=64), None)


def test_weights_are_tried_and_the_generator_is_left_as_it_was(tmp_path: Path) -> None:
    save_file({"odd": torch.zeros(1)}, tmp_path / "odd.safetensors")
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"'odd\.safetensors' does not fit the backbone"):
        check_backbone(settings_of(), InitialWeights.read(tmp_path, "odd.safetensors"))
    assert torch.equal(torch.get_rng_state(), before)
