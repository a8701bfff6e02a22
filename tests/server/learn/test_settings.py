from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview_server import configuration
from manyview_server.configuration import InvalidConfiguration, json_schema
from manyview_server.learn.methods import METHODS, from_json, resolve, to_json
from manyview_server.learn.methods.contrastive.moco import MoCoSettings
from manyview_server.learn.methods.contrastive.simclr import SimCLRSettings
from manyview_server.learn.optimizers import OptimizerSettings
from manyview_server.learn.views.presets import PRESETS
from manyview_server.learn.views.recipe import BlurSettings, GrayscaleSettings, PipelineSettings, ViewSettings


def violations(method: Any, overrides: Any) -> Any:
    with pytest.raises(InvalidConfiguration) as caught:
        resolve(method, overrides)
    return {violation.field: violation.description for violation in caught.value.violations}


@pytest.mark.parametrize("method", METHODS)
def test_without_overrides_the_defaults_of_the_method_come_out(method: str) -> None:
    assert resolve(method, {}) == METHODS[method].settings()
    assert resolve(method, {}).method == method


def test_presets_are_those_of_the_papers() -> None:
    simclr, moco = SimCLRSettings(), MoCoSettings()
    (simclr_views,), (moco_views,) = simclr.views.pipelines, moco.views.pipelines
    assert (simclr_views.crop.scale_min, moco_views.crop.scale_min) == (0.08, 0.2)
    jitter = [simclr_views.color_jitter, moco_views.color_jitter]
    assert [(j.brightness, j.contrast, j.saturation, j.hue, j.strength) for j in jitter] == [
        (0.8, 0.8, 0.8, 0.2, 1.0),
        (0.4, 0.4, 0.4, 0.1, 1.0),
    ]
    assert (simclr.memory_bank_size, moco.memory_bank_size) == (0, None)


def test_overrides_reach_single_fields_and_leave_their_neighbors() -> None:
    settings = resolve("moco", {"views": {"crop": {"scale_max": 0.9}}, "optimizer": {"learning_rate": 1}})
    assert settings.views.pipelines[0].crop.scale_max == 0.9
    assert settings.views.pipelines[0].crop.scale_min == 0.2
    assert settings.optimizer.learning_rate == 1.0
    assert isinstance(settings.optimizer.learning_rate, float)


def test_all_violations_are_told_at_once() -> None:
    found = violations(
        "simclr",
        {
            "epochs": 2.5,
            "batch_size": 1,
            "temperature": None,
            "seed": True,
            "stem": "tiny",
            "optimizer": 3,
            "views": {
                "blur": {"probability": 1.5, "sigmamax": 2},
                "normalize": {"mean": [0.5, 0.5], "std": [1, 0, 1]},
            },
        },
    )
    assert found == {
        "epochs": "must be an integer, at least 1 and at most 100,000 (got 2.5)",
        "batch_size": "must be an integer, at least 2 and at most 65,536, or null (got 1)",
        "temperature": "must be a number, at least 0.01 and at most 100 (got null)",
        "seed": "must be an integer, at least 0 and at most 9,007,199,254,740,991 (got true)",
        "stem": "must be one of 'auto', 'imagenet', 'small' (got 'tiny')",
        "optimizer": "must be an object (got 3)",
        "views.blur.probability": "must be a number, at least 0 and at most 1 (got 1.5)",
        "views.blur.sigmamax": "'sigmamax' is not known; did you mean 'views.blur.sigma_max'?",
        "views.normalize.mean": "must be a list of exactly 3, each a number, at least 0 and at most 1 (got [0.5, 0.5])",
        "views.normalize.std[1]": "must be a number, at least 0.001 and at most 10 (got 0)",
    }


def test_the_text_of_the_error_names_field_value_and_range() -> None:
    with pytest.raises(InvalidConfiguration, match=r"temperature: .*, at least 0\.01 and at most 100 \(got 0\)"):
        resolve("simclr", {"temperature": 0})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "0.5", True, [0.5], 10**400])
def test_what_is_not_a_finite_number_within_bounds_is_refused(value: Any) -> None:
    assert list(violations("simclr", {"temperature": value})) == ["temperature"]


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"views": {"crop": {"scale_min": 0.9, "scale_max": 0.5}}}, "views.crop.scale_min"),
        ({"views": {"crop": {"ratio_min": 2.0}}}, "views.crop.ratio_min"),
        ({"views": {"blur": {"probability": 0.5, "sigma_max": 0.05}}}, "views.blur.sigma_min"),
        ({"views": {"color_jitter": {"hue": 0.4, "strength": 2}}}, "views.pipelines[0].color_jitter.hue"),
        ({"epochs": 3, "optimizer": {"warmup_epochs": 4}}, "optimizer.warmup_epochs"),
        ({"ema_momentum": 0.9, "ema_momentum_end": 0.5}, "ema_momentum_end"),
    ],
)
def test_rules_between_fields_are_checked(overrides: dict[str, Any], field: str) -> None:
    assert list(violations("moco", overrides)) == [field]


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"views": {"blur": {"probability": 0, "sigma_max": 1}}}, "views.blur.sigma_max"),
        ({"views": {"solarize": {"threshold": 100}}}, "views.solarize.threshold"),
        ({"views": {"color_jitter": {"probability": 0, "hue": 0.05}}}, "views.color_jitter.hue"),
        ({"views": {"color_jitter": {"strength": 0, "contrast": 0.05}}}, "views.color_jitter.contrast"),
        ({"evaluation": {"knn_every_epochs": 0, "knn_k": 5}}, "evaluation.knn_k"),
    ],
)
def test_a_field_that_would_have_no_effect_is_refused(overrides: dict[str, Any], field: str) -> None:
    found = violations("simclr", overrides)
    assert list(found) == [field]
    assert "has no effect while" in found[field]


def test_a_bank_can_be_given_with_its_width() -> None:
    assert resolve("moco", {"memory_bank_size": [4096, 128]}).memory_bank_size == 4096  # type: ignore[attr-defined]
    assert resolve("moco", {"memory_bank_size": (512, 64), "projection_dim": 64}) == resolve(
        "moco", {"memory_bank_size": 512, "projection_dim": 64}
    )
    assert resolve("simclr", {"memory_bank_size": [0, 128]}).memory_bank_size == 0  # type: ignore[attr-defined]


BANK_SIZE = "must be an integer, at least 1 and at most 1,048,576, or null"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([4096, 256], "the second number must be projection_dim, which is 128 (got [4096, 256])"),
        ([4096, "128"], 'the second number must be projection_dim, which is 128 (got [4096, "128"])'),
        ([0, 128], f"{BANK_SIZE} (got 0)"),
        ([4096], f"{BANK_SIZE} (got [4096])"),
        ([4096, 128, 1], f"{BANK_SIZE} (got [4096, 128, 1])"),
        (["4096", 128], f"{BANK_SIZE} (got '4096')"),
    ],
)
def test_a_bank_of_another_width_than_the_projections_is_refused(given: list[Any], message: str) -> None:
    assert violations("moco", {"memory_bank_size": given}) == {"memory_bank_size": message}


@pytest.mark.parametrize(
    ("method", "config", "field", "text"),
    [
        ("simclr", {"image_size": 33}, "image_size", "vit_tiny divides it into patches; nearest: 32 or 34 (got 33)"),
        ("mae", {"image_size": 30, "patch_size": 16}, "image_size", "which is 16; nearest: 16 or 32 (got 30)"),
        ("simclr", {"image_size": 8, "patch_size": 16}, "image_size", "which is 16; nearest: 16 (got 8)"),
        ("dino", {"image_size": 224, "patch_size": 14, "views": {"preset": "dino"}}, "views.pipelines[2].size_fraction",
         "makes views of 96 pixels, but they must be a multiple of patch_size, which is 14"),
    ],
)  # fmt: skip
def test_views_that_a_transformer_cannot_divide_into_patches_are_refused(
    method: str, config: Any, field: str, text: str
) -> None:
    found = violations(method, {"backbone": "vit_tiny", **config})
    assert list(found) == [field]
    assert text in found[field]


def test_other_networks_take_any_size() -> None:
    assert resolve("simclr", {"image_size": 33}).image_size == 33
    assert resolve("simclr", {"image_size": 33, "backbone": "timm/vit_tiny_patch16_224"}).image_size == 33


def test_switching_something_off_is_no_violation() -> None:
    off = {"blur": {"probability": 0}, "color_jitter": {"probability": 0}}
    assert resolve("simclr", {"views": off}).views.pipelines[0].blur.probability == 0


def test_an_unknown_method_is_told_with_the_nearest_one_or_with_all() -> None:
    assert violations("simclar", {}) == {"method": "'simclar' is not known; did you mean 'simclr'?"}
    assert violations("zzz", {})["method"].startswith("'zzz' is not known; known: simclr, ")


def test_a_field_of_another_method_is_unknown() -> None:
    assert list(violations("simclr", {"ema_momentum": 0.9})) == ["ema_momentum"]
    assert list(violations("moco", {"memory_bank_size": 0})) == ["memory_bank_size"]


def test_an_override_of_the_method_must_agree() -> None:
    assert resolve("moco", {"method": "moco"}).method == "moco"
    assert list(violations("moco", {"method": "simclr"})) == ["method"]


def test_whole_numbers_written_as_floats_are_integers() -> None:
    batch_size = resolve("simclr", {"batch_size": 128.0}).batch_size
    assert batch_size == 128
    assert isinstance(batch_size, int)


def test_an_instance_made_by_hand_is_checked_too() -> None:
    with pytest.raises(InvalidConfiguration, match="batch_size"):
        SimCLRSettings(batch_size=0)
    with pytest.raises(InvalidConfiguration, match="warmup_epochs"):
        SimCLRSettings(epochs=1, optimizer=OptimizerSettings(warmup_epochs=2))


def test_the_default_learning_rate_grows_with_the_batch() -> None:
    assert OptimizerSettings().peak_learning_rate(256) == pytest.approx(0.12)
    assert OptimizerSettings(learning_rate=0.5).peak_learning_rate(256) == 0.5


@pytest.mark.parametrize("method", METHODS)
def test_settings_cannot_be_changed_in_place(method: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolve(method, {}).epochs = 3  # type: ignore[misc]


probabilities = st.fixed_dictionaries({"probability": st.floats(0, 1)})


@settings(deadline=None)
@given(
    method=st.sampled_from(sorted(METHODS)),
    backbone_width=st.floats(0, 8, exclude_min=True),
    decode_size=st.none() | st.integers(8, 2048),
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    flip=probabilities,
    blur=probabilities,
)
def test_the_round_trip_through_json_is_exact(
    method: Any, backbone_width: Any, decode_size: Any, mean: Any, flip: Any, blur: Any
) -> None:
    views = {"normalize": {"mean": list(mean)}, "horizontal_flip": flip, "blur": blur}
    settings = resolve(method, {"backbone_width": backbone_width, "decode_size": decode_size, "views": views})
    assert settings.views.normalize.mean == mean
    assert from_json(json.loads(json.dumps(to_json(settings)))) == settings


def test_json_without_a_method_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match="method"):
        from_json({"epochs": 3})


@pytest.mark.parametrize(
    ("num_images", "batch_size"),
    [
        (2, 2),
        (3, 2),
        (20, 16),
        (32, 32),
        (1_600, 32),
        (9_599, 32),
        (10_000, 64),
        (20_000, 128),
        (50_000, 256),
        (10**7, 256),
    ],
)
def test_the_default_batch_gives_an_epoch_about_150_steps_within_bounds(num_images: int, batch_size: int) -> None:
    assert SimCLRSettings().batch_size_for(num_images) == batch_size
    assert SimCLRSettings(batch_size=48).batch_size_for(num_images) == 48


def views_of(overrides: Any) -> Any:
    return resolve("simclr", {"views": overrides}).views


def test_a_preset_is_begun_from_and_changed_for_all_views_or_for_one() -> None:
    views = views_of(
        {"preset": "byol", "blur": {"sigma_max": 1.5}, "pipelines": {"1": {"solarize": {"probability": 0.5}}}}
    )
    first, second = views.pipelines
    assert [pipeline.blur.sigma_max for pipeline in views.pipelines] == [1.5, 1.5]
    assert (first.blur.probability, second.blur.probability) == (1.0, 0.1)
    assert (first.solarize.probability, second.solarize.probability) == (0.0, 0.5)


def test_a_recipe_is_composed_of_pipelines_in_which_nothing_happens_unless_told() -> None:
    views = views_of({"pipelines": [{"blur": {"probability": 0.5}}, {}], "grayscale": {"probability": 0.1}})
    assert views.num_views == 2
    plain = PipelineSettings(grayscale=GrayscaleSettings(probability=0.1))
    assert views.pipelines == (dataclasses.replace(plain, blur=BlurSettings(probability=0.5)), plain)


@pytest.mark.parametrize(
    ("overrides", "field", "message"),
    [
        ({"preset": "bylo"}, "views.preset", "must be one of 'simclr'"),
        ({"preset": 3}, "views.preset", "must be one of"),
        ({"preset": "byol", "pipelines": [{}, {}]}, "views.preset", "has no effect because views.pipelines is given"),
        ({"pipelines": []}, "views.pipelines", "must be a list of at least 1"),
        ({"pipelines": "byol"}, "views.pipelines", "must be a list"),
        ({"pipelines": [{}, 3]}, "views.pipelines[1]", "must be an object"),
        (
            {"pipelines": {"1": {}}},
            "views.pipelines.1",
            "must be an index from 0 to 0, or views.pipelines must",
        ),
        ({"pipelines": {"first": {}}}, "views.pipelines.first", "must be an index"),
        ({"pipelines": {"0": 3}}, "views.pipelines.0", "must be an object"),
        ({"pipelines": {"0": {"blurr": {}}}}, "views.pipelines[0].blurr", "did you mean 'views.pipelines[0].blur'?"),
        ({"pipelines": {"0": {"rotation": {"degrees_max": 1}}}}, "views.pipelines[0].rotation.degrees_max", "has no"),
        (
            {"pipelines": [{"count": 2, "solarize": {"threshold": 9}}]},
            "views.pipelines[0].solarize.threshold",
            "has no",
        ),
        ({"pipelines": [{"count": 2, "blur": {"probability": 2}}]}, "views.pipelines[0].blur.probability", "at most 1"),
        ({"blur": 3}, "views.blur", "must be an object"),
        ({"blur": {"probability": 2}}, "views.blur.probability", "at most 1"),
        ({"count": 3}, "views.count", "is not known"),
        ({"preset": "mae"}, "views.pipelines", "takes 2 views of the whole image_size, and the pipelines make 1"),
        ({"preset": "dino"}, "views.pipelines", "takes no smaller views"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_told_where_it_was_written(
    overrides: dict[str, Any], field: str, message: str
) -> None:
    found = violations("simclr", {"views": overrides})
    assert list(found) == [field]
    assert message in found[field]


def test_what_changes_some_of_the_views_has_an_effect() -> None:
    solarized = views_of({"preset": "byol", "solarize": {"threshold": 100}})
    assert [pipeline.solarize.threshold for pipeline in solarized.pipelines] == [100, 100]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_comes_out_of_the_schema_as_it_went_in(preset: Any) -> None:
    schema = json_schema(SimCLRSettings)["properties"]["views"]
    sparse = {"pipelines": schema["x-presets"][preset]}
    assert configuration.resolve(ViewSettings, sparse) == PRESETS[preset]


def test_a_resolved_recipe_is_read_again_though_parts_of_it_are_switched_off() -> None:
    settings = resolve("simclr", {"views": {"preset": "byol", "color_jitter": {"probability": 0}}})
    assert from_json(to_json(settings)) == settings
