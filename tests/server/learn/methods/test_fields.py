from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest

from manyview_server import configuration
from manyview_server.configuration import json_schema, resolution
from manyview_server.learn.methods import METHODS, from_json, resolve, to_json
from manyview_server.learn.methods.contrastive.simclr import SimCLRSettings
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views.presets import PRESETS

# Each value is the same for all pipelines, or there is one for each. The strength multiplies the jitter's amounts.
DEFAULTS = """
methods                   image_size  views                      blur         strength
simclr,dcl,dclw,nnclr     32          2x32                       0            0.5
simclr,dcl,dclw,nnclr     64          2x64                       0            0.5
simclr,dcl,dclw,nnclr     128         2x128                      0.5          1
simclr,dcl,dclw,nnclr     224         2x224                      0.5          1
moco,simsiam              32          2x32                       0            1
moco,simsiam              64          2x64                       0            1
moco,simsiam              128         2x128                      0.5          1
moco,simsiam              224         2x224                      0.5          1
byol,barlow_twins         32          1x32,1x32                  0            1
byol,barlow_twins         64          1x64,1x64                  0            1
byol,barlow_twins         128         1x128,1x128                1,0.1        1
byol,barlow_twins         224         1x224,1x224                1,0.1        1
vicreg                    32          2x32                       0            0.5
vicreg                    64          2x64                       0            0.5
vicreg                    128         2x128                      0.5          0.5
vicreg                    224         2x224                      0.5          0.5
swav                      32          2x32                       0            0.5
swav                      64          2x64                       0            0.5
swav                      128         2x128,6x48                 0.5          1
swav                      224         2x224,6x96                 0.5          1
dino                      32          1x32,1x32                  0            0.5
dino                      64          1x64,1x64                  0            0.5
dino                      128         1x128,1x128,6x48           1,0.1,0.5    0.5
dino                      224         1x224,1x224,6x96           1,0.1,0.5    0.5
mae,simmim                32          1x32                       0            -
mae,simmim                64          1x64                       0            -
mae,simmim                128         1x128                      0            -
mae,simmim                224         1x224                      0            -
"""


def rows() -> Iterator[Any]:
    for line in DEFAULTS.split("\n")[2:-1]:
        methods, image_size, *expected = line.split()
        for method in methods.split(","):
            yield pytest.param(method, int(image_size), tuple(expected), id=f"{method}-{image_size}")


def described(settings: TrainSettings) -> tuple[str, str, str]:
    pipelines = settings.views.pipelines
    views = ",".join(f"{pipeline.count}x{pipeline.size(settings.image_size)}" for pipeline in pipelines)
    blur = dict.fromkeys(f"{pipeline.blur.probability:g}" for pipeline in pipelines)
    jitters = [pipeline.color_jitter for pipeline in pipelines]
    strength = dict.fromkeys(f"{jitter.strength:g}" if jitter.probability else "-" for jitter in jitters)
    return views, ",".join(blur), ",".join(strength)


@pytest.mark.parametrize(("method", "image_size", "expected"), [*rows()])
def test_each_method_has_the_paper_s_views_from_96_pixels_and_small_ones_below(
    method: str, image_size: int, expected: tuple[str, str, str]
) -> None:
    resolved = resolve(method, {"image_size": image_size})
    assert described(resolved) == expected
    assert METHODS[method].settings(image_size=image_size) == resolved  # made by hand, as in a notebook
    schema = json.loads(json.dumps(json_schema(METHODS[method].settings)))  # as the front has it
    assert resolution.resolve(schema, {"image_size": image_size}) == to_json(resolved)


def test_the_table_holds_every_method() -> None:
    assert {row.values[0] for row in rows()} == set(METHODS)


@pytest.mark.parametrize(("image_size", "blur"), [(95, 0), (96, 0.5)])
def test_the_paper_s_views_begin_at_96_pixels(image_size: int, blur: float) -> None:
    assert resolve("simclr", {"image_size": image_size}).views.pipelines[0].blur.probability == blur


def test_changes_go_over_the_recipe_of_the_size() -> None:
    gray = {"views": {"grayscale": {"probability": 0.5}}}
    for image_size, blur in ((32, 0), (224, 0.5)):
        (pipeline,) = resolve("moco", {"image_size": image_size, **gray}).views.pipelines
        assert (pipeline.grayscale.probability, pipeline.blur.probability) == (0.5, blur)
    (pipeline,) = resolve("moco", {"views": {"blur": {"probability": 0}}}).views.pipelines
    assert pipeline.blur.probability == 0


def test_a_recipe_that_was_chosen_holds_at_every_size() -> None:
    assert resolve("simclr", {"image_size": 32, "views": {"preset": "simclr"}}).views == PRESETS["simclr"]
    assert resolve("simclr", {"views": {"preset": "simclr_small"}}).views == PRESETS["simclr_small"]
    assert SimCLRSettings(image_size=32, views=PRESETS["simclr"]).views == PRESETS["simclr"]


def test_settings_made_by_hand_change_their_default_recipe_with_their_size() -> None:
    small = SimCLRSettings(image_size=32)
    large = dataclasses.replace(small, image_size=224)
    assert (small.views, large.views) == (PRESETS["simclr_small"], PRESETS["simclr"])
    assert dataclasses.replace(large, image_size=32).views == PRESETS["simclr_small"]


def test_a_configuration_of_an_earlier_job_keeps_its_recipe_at_another_size() -> None:
    schema = json_schema(SimCLRSettings)
    before = to_json(resolve("simclr", {"image_size": 32}))
    assert resolution.resolve(schema, {"image_size": 224}, before)["views"] == before["views"]
    of_older_release = {**to_json(resolve("simclr", {})), "views": configuration.to_json(PRESETS["simclr_small"])}
    assert from_json(of_older_release).views == PRESETS["simclr_small"]


@pytest.mark.parametrize("image_size", ["32", None, True, [32]])
def test_a_size_that_is_no_number_is_refused_as_ever(image_size: Any) -> None:
    with pytest.raises(configuration.InvalidConfiguration, match="image_size: must be an integer"):
        resolve("simclr", {"image_size": image_size})


def test_the_schema_names_both_recipes_and_their_values() -> None:
    views = json_schema(SimCLRSettings)["properties"]["views"]
    assert views["x-default-preset"] == {
        "sibling": "image_size",
        "below": 96,
        "small": "simclr_small",
        "large": "simclr",
    }
    blur, jitter = views["properties"]["blur"]["properties"], views["properties"]["color_jitter"]["properties"]
    assert (blur["probability"]["default"], blur["probability"]["x-small-default"]) == (0.5, 0)
    assert (jitter["strength"]["default"], jitter["strength"]["x-small-default"]) == (1, 0.5)
    assert "x-small-default" not in jitter["hue"]
