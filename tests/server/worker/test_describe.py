from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema
import pytest
import torch
from safetensors.torch import save_file

from manyview_server.learn import backbones
from manyview_server.learn.methods import METHODS
from manyview_server.worker import __main__ as entry
from manyview_server.worker.describe import check_weights, describe, describe_backbone
from support.learning import worker_harness


def test_the_catalogue_names_every_method_and_backbone_and_the_cpu() -> None:
    found = describe()
    assert [method["name"] for method in found["methods"]] == list(METHODS)
    for method in found["methods"]:
        jsonschema.Draft202012Validator.check_schema(method["schema"])
        assert method["paper"].startswith("https://")
    assert [backbone["name"] for backbone in found["backbones"]] == list(backbones.BACKBONES)
    resnet18 = next(backbone for backbone in found["backbones"] if backbone["name"] == "resnet18")
    assert (resnet18["feature_dim"], resnet18["num_parameters"]) == (512, 11_176_512)
    assert found["devices"][-1]["name"] == "cpu"
    assert found["devices"][-1]["memory_bytes"] > 1 << 30


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("torchvision/resnet18", ""),
        ("torchvision/resnet19", "unknown backbone 'torchvision/resnet19'; did you mean 'torchvision/resnet18'"),
        ("timm/resnet18", ""),
        ("timm/resnet18x", "unknown backbone 'timm/resnet18x'; did you mean 'timm/resnet18'"),
    ],
)
def test_a_network_of_a_library_is_described_by_what_is_wrong_with_its_name(name: str, problem: str) -> None:
    found = describe_backbone(name)["problem"]
    assert found.startswith(problem)
    assert bool(found) == bool(problem)


def test_a_network_of_a_library_is_described_with_how_its_images_are_prepared() -> None:
    found = describe_backbone("timm/vit_tiny_patch16_224")
    assert found["preprocessing"]["mean"] == [0.5, 0.5, 0.5]
    untold = describe_backbone("timm/vit_base_patch32_plus_256")
    assert (untold["problem"], untold["preprocessing"]) == ("", None)


def test_weights_that_do_not_fit_a_job_are_found_before_it_starts(tmp_path: Path) -> None:
    settings = worker_harness.settings(backbone_weights="mine.safetensors")
    backbone = backbones.build("resnet9", width=settings["backbone_width"], image_size=settings["image_size"])
    save_file(backbone.state_dict(), tmp_path / "mine.safetensors")
    assert check_weights(settings, str(tmp_path)) == {"problem": ""}
    assert check_weights({**settings, "backbone_weights": None}, str(tmp_path)) == {"problem": ""}
    save_file({"odd": torch.zeros(1)}, tmp_path / "mine.safetensors")
    assert check_weights(settings, str(tmp_path))["problem"].startswith(
        "backbone_weights: 'mine.safetensors' does not fit the backbone: the weights belong to another network: missing"
    )


def test_the_command_prints_one_json_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["manyview_server.worker", "describe"])
    for change_of_process in ("_die_with_parent", "_prefer_as_oom_victim"):
        monkeypatch.setattr(entry, change_of_process, lambda: None)
    entry.main()
    assert set(json.loads(capsys.readouterr().out)) == {
        "versions",
        "devices",
        "methods",
        "backbones",
        "plugin_errors",
    }
