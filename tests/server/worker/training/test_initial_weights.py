from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from manyview_server.learn import backbones, methods
from manyview_server.worker.training.initial_weights import InitialWeights
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
        ("text.safetensors", "is no safetensors file, or is damaged"),
        ("short.safetensors", "is no safetensors file, or is damaged"),
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
    InitialWeights.read(tmp_path, "theirs.safetensors").put_into(method)
    for network in (method.encoder.backbone, method.teacher["encoder"].backbone):
        assert torch.equal(network.conv1.weight, theirs.conv1.weight)
        assert torch.equal(network.layer4[0].conv2.weight, theirs.layer4[0].conv2.weight)


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    save_file(backbones.build("resnet9", width=0.25, image_size=16).state_dict(), tmp_path / "wide.safetensors")
    method = methods.build_method(methods.from_json(worker_harness.settings("simclr")), 64)
    with pytest.raises(ValueError, match=r"'wide.safetensors' does not fit the backbone: .* conv1.weight \(16, "):
        InitialWeights.read(tmp_path, "wide.safetensors").put_into(method)
