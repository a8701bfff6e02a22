"""Every parameter of a recipe does something."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from manyview_server import configuration
from manyview_server.configuration.settings_class import build
from manyview_server.configuration.shorthand import merged
from manyview_server.learn.backbones import choose_patch_size
from manyview_server.learn.views import make_views
from manyview_server.learn.views.recipe import PipelineSettings, ViewSettings

# All changes happen to some of the views, so that whatever each needs is there.
ACTIVE = {
    name: {"probability": 0.5}
    for name, field in configuration.json_schema(PipelineSettings)["properties"].items()
    if "probability" in field.get("properties", {})
}
BASE = configuration.resolve(ViewSettings, {"pipelines": [{"count": 2, **ACTIVE}]})


def leaves(field: Any, path: Any = ()) -> Any:
    """(path, schema) of every parameter."""
    for name, inner in field["properties"].items():
        if "properties" in inner:
            yield from leaves(inner, (*path, name))
        elif name != "pipelines":
            yield (*path, name), inner


LEAVES = {".".join(path): (path, leaf) for path, leaf in leaves(configuration.json_schema(PipelineSettings))}
SWITCHED = [name for name in LEAVES if name.split(".")[0] in ACTIVE and not name.endswith(".probability")]
OF_ALL = {".".join(path): (path, leaf) for path, leaf in leaves(configuration.json_schema(ViewSettings))}


def another(leaf: Any, value: Any) -> Any:
    """A value within the bounds that is not `value`."""
    if "enum" in leaf:
        return next(choice for choice in leaf["enum"] if choice != value)
    if leaf["type"] == "boolean":
        return not value
    if leaf["type"] == "array":
        return [another(leaf["items"], item) for item in value]
    low = leaf.get("minimum", leaf.get("exclusiveMinimum"))
    if leaf["type"] == "integer":
        return value + 1
    return value - 0.4 * (value - low) if value > low else value + 0.3 * (leaf["maximum"] - low)


def at(path: Any, value: Any) -> Any:
    """{"a": {"b": value}} for the path a.b."""
    return value if not path else {path[0]: at(path[1:], value)}


def views_of(settings: Any) -> Any:
    noise = torch.rand(16, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    images = (torch.nn.functional.interpolate(noise, (24, 24), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)
    sizes = torch.tensor([[24, 30]]).repeat(16, 1)
    return make_views(images, sizes, torch.arange(16) * 31, settings, image_size=20, seed=0, epoch=0)


def differ(one: Any, other: Any) -> Any:
    return len(one) != len(other) or any(
        a.shape != b.shape or (a - b).abs().max() > 1e-3 for a, b in zip(one, other, strict=True)
    )


def test_the_recipe_has_parameters_in_every_step() -> None:
    assert len(LEAVES) > 25
    assert set(ACTIVE) <= {path[0] for path, _ in LEAVES.values()}


@pytest.mark.parametrize(
    ("image_size", "expected"), [(16, 8), (28, 12), (32, 12), (64, 24), (96, 40), (100, 44), (128, 48), (224, 96)]
)
def test_small_views_have_sizes_that_patches_tile(image_size: int, expected: int) -> None:
    assert PipelineSettings(size_fraction=3 / 7).size(image_size) == expected


def test_whatever_share_of_the_image_size_its_patches_tile_a_view_of_it() -> None:
    for image_size in range(8, 1025, 2):
        patch_size = choose_patch_size(image_size)
        for fraction in (0.1, 0.3, 3 / 7, 0.9, 1.0):
            assert PipelineSettings(size_fraction=fraction).size(image_size) % patch_size == 0


@pytest.mark.parametrize("name", LEAVES)
def test_every_parameter_of_a_pipeline_takes_effect(name: Any) -> None:
    path, leaf = LEAVES[name]
    value = configuration.to_json(BASE)["pipelines"][0]
    for part in path:
        value = value[part]
    pipeline = merged(configuration.to_json(BASE.pipelines[0]), at(path, another(leaf, value)))
    changed = dataclasses.replace(BASE, pipelines=(build(PipelineSettings, pipeline),))
    assert differ(views_of(changed), views_of(BASE))


@pytest.mark.parametrize("name", OF_ALL)
def test_every_parameter_of_all_views_takes_effect(name: Any) -> None:
    path, leaf = OF_ALL[name]
    value = configuration.to_json(BASE)
    for part in path:
        value = value[part]
    changed = build(ViewSettings, merged(configuration.to_json(BASE), at(path, another(leaf, value))))
    assert differ(views_of(changed), views_of(BASE))


@pytest.mark.parametrize("name", SWITCHED)
def test_what_a_step_is_told_is_nothing_to_views_without_it(name: Any) -> None:
    (step, parameter), leaf = LEAVES[name]
    inner = getattr(BASE.pipelines[0], step)
    off = dataclasses.replace(inner, probability=0.0)
    value = another(leaf, getattr(inner, parameter))
    pipelines = [
        dataclasses.replace(BASE.pipelines[0], **{step: settings})
        for settings in (off, dataclasses.replace(off, **{parameter: value}))
    ]
    one, other = (views_of(dataclasses.replace(BASE, pipelines=(pipeline,))) for pipeline in pipelines)
    assert not differ(one, other)
