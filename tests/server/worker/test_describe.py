from __future__ import annotations

import json
import sys

import jsonschema
import pytest

from manyview_server.learn import backbones
from manyview_server.learn.methods import METHODS
from manyview_server.worker import __main__ as entry
from manyview_server.worker.describe import describe, describe_backbone


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
