"""The catalogue names what there is, and refuses configurations as a request does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from manyview_server.errors import InvalidArgument
from manyview_server.supervise.catalogue.catalogue import Catalogue, CatalogueError, Device

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "batch_size": {"type": "integer", "default": 256, "minimum": 2, "maximum": 65536},
        "projection_dim": {"type": "integer", "default": 128, "x-fixed": True},
        "views": {"type": "object", "properties": {"size": {"type": "integer", "default": 8, "x-fixed": True}}},
    },
    "additionalProperties": False,
}
DOCUMENT: dict[str, Any] = {
    "versions": {"torch": "2"},
    "devices": [
        {"name": "cpu", "description": "a CPU", "memory_bytes": 1},
        {"name": "cuda:0", "description": "a GPU", "memory_bytes": 2},
        {"name": "cuda:1", "description": "a GPU", "memory_bytes": 2},
    ],
    "methods": [{"name": "moco", "title": "MoCo", "paper": "https://arxiv.org/abs/2003.04297", "schema": SCHEMA}],
    "backbones": [{"name": "resnet18", "feature_dim": 512, "num_parameters": 11}],
    "plugin_errors": [{"group": "g", "name": "n", "package": "p 1", "problem": "it fails", "traceback": "…"}],
}


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue.parse(json.dumps(DOCUMENT))


def refused(call: Any, *arguments: Any) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as caught:
        call(*arguments)
    assert caught.value.reason == "FIELD_INVALID"
    return {v.field: v.description for v in caught.value.violations}


def test_an_unknown_method_is_told_with_the_nearest_one(catalogue: Catalogue) -> None:
    assert refused(catalogue.resolve, "mocco", {}) == {"method": "'mocco' is not known; did you mean 'moco'?"}


def test_a_configuration_is_resolved_or_refused_with_the_fields_of_a_request(catalogue: Catalogue) -> None:
    assert catalogue.resolve("moco", {"batch_size": 4.0})["batch_size"] == 4
    assert refused(catalogue.resolve, "moco", {"batch_size": 1, "views": 3}) == {
        "config.batch_size": "must be an integer, at least 2 and at most 65,536 (got 1)",
        "config.views": "must be an object (got 3)",
    }


def test_a_configuration_that_is_too_large_is_refused_as_a_whole(catalogue: Catalogue) -> None:
    assert list(refused(catalogue.resolve, "moco", {"batch_size": [1] * 9_000})) == ["config"]


def test_a_run_that_continues_from_a_checkpoint_cannot_change_what_shapes_it(catalogue: Catalogue) -> None:
    before = {"projection_dim": 64}
    after = catalogue.resolve("moco", {"batch_size": 4}, before)
    catalogue.check_continuation("moco", before, after)
    changed = catalogue.resolve("moco", {"projection_dim": 32, "views": {"size": 9}}, before)
    assert refused(catalogue.check_continuation, "moco", before, changed) == {
        "config.projection_dim": "must stay 64 in a job that continues from a checkpoint (got 32)",
        "config.views.size": "must stay 8 in a job that continues from a checkpoint (got 9)",
    }


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [("auto", ("cuda:0", "cuda:1")), ("cpu", ("cpu",)), ("cuda", ("cuda:0", "cuda:1")), ("cuda:1", ("cuda:1",))],
)
def test_devices_are_chosen_by_name(catalogue: Catalogue, wanted: str, chosen: tuple[Any, ...]) -> None:
    assert catalogue.choose_devices(wanted) == chosen


def test_auto_is_the_cpu_where_there_is_no_gpu() -> None:
    cpu = Device(name="cpu", description="", memory_bytes=1)
    assert Catalogue(versions={}, devices=(cpu,), methods=(), backbones=()).choose_devices("auto") == ("cpu",)
    with pytest.raises(CatalogueError, match="no device 'cuda'; there is cpu"):
        Catalogue(versions={}, devices=(cpu,), methods=(), backbones=()).choose_devices("cuda")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"versions": {}, "devices": [{}], "methods": [], "backbones": []}'])
def test_a_description_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(CatalogueError, match="not as expected"):
        Catalogue.parse(text)
