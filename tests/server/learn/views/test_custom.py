"""Transforms of installed packages: one more step of a pipeline, as typed and as repeatable as our own."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import jsonschema
import pytest
import torch

from manyview_server import configuration
from manyview_server.configuration import InvalidConfiguration
from manyview_server.errors import InvalidArgument
from manyview_server.learn import methods, plugins
from manyview_server.learn.plugins import PluginBroken
from manyview_server.learn.views import apply, custom, draw, draw_all, make_views, require_plugins
from manyview_server.learn.views.presets import PRESETS
from manyview_server.learn.views.recipe import BlurSettings, PipelineSettings, ViewSettings
from manyview_server.supervise.catalogue.catalogue import Catalogue, Method
from support.service.plugins import POSTERIZE

COUNT = 400
IDS = torch.randint(0, 2**62, (COUNT,), generator=torch.Generator().manual_seed(1))
SIZES = torch.full((COUNT, 2), 24)
DARKEN = POSTERIZE.replace(
    "return (planes", "return planes * (0.2 + 0.8 * numbers[:, 1, None, None].float())\n    _ = (planes"
)


@pytest.fixture
def posterize(install_plugin: Any) -> Any:
    """Its settings class."""
    install_plugin("posterize", POSTERIZE)
    return custom.settings_classes()["posterize"]


@pytest.fixture(scope="module")
def images() -> Any:
    noise = torch.rand(COUNT, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return (torch.nn.functional.interpolate(noise, (24, 24), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def recipe(**settings: Any) -> Any:
    return ViewSettings(pipelines=(dataclasses.replace(PRESETS["simclr"].pipelines[0], custom=settings),))


def views_of(images: Any, settings: Any, rows: Any = slice(None), seed: Any = 0) -> Any:
    (views,) = make_views(images[rows], SIZES[rows], IDS[rows], settings, image_size=20, seed=seed, epoch=0)
    return views


def drawn(settings: Any, rows: Any = slice(None), name: Any = "posterize", **moment: Any) -> Any:
    (parameters,) = draw_all(settings, SIZES[rows], IDS[rows], cache_size=24, **({"seed": 0, "epoch": 0} | moment))
    return parameters.custom[name]


def violations(overrides: Any) -> Any:
    with pytest.raises(InvalidConfiguration) as caught:
        methods.resolve("simclr", {"views": overrides})
    return {violation.field: violation.description for violation in caught.value.violations}


def test_it_changes_the_views_that_it_applies_to_and_no_other(posterize: Any, images: Any) -> None:
    settings = recipe(posterize=posterize(probability=0.3, bits=1))
    applies = drawn(settings).applies.view(2, COUNT)
    assert abs(applies.float().mean().item() - 0.3) < 0.07
    plain, changed = views_of(images, recipe()), views_of(images, settings)
    assert torch.equal((plain != changed).any(dim=(2, 3, 4)), applies)
    std, mean = (
        torch.tensor(values)[:, None, None]
        for values in (PRESETS["simclr"].normalize.std, PRESETS["simclr"].normalize.mean)
    )
    levels = (changed[applies] * std + mean) * 255
    assert set(levels.round().unique().tolist()) == {0.0, 128.0}


def test_nothing_else_that_is_drawn_changes(posterize: Any) -> None:
    plain, more = (
        draw_all(recipe(**given), SIZES, IDS, cache_size=24, seed=0, epoch=0)[0]
        for given in ({}, {"posterize": posterize(probability=1)})
    )
    for field in dataclasses.fields(plain):
        if field.name != "custom":
            assert torch.equal(getattr(plain, field.name), getattr(more, field.name))


def test_its_numbers_are_uniform_its_own_and_repeatable(posterize: Any) -> None:
    numbers = drawn(recipe(posterize=posterize(probability=0.5))).numbers
    assert numbers.shape == (2 * COUNT, 2)
    assert (numbers.min() >= 0) & (numbers.max() < 1)
    assert (numbers.mean(0) - 0.5).abs().max() < 0.05
    assert torch.corrcoef(numbers.T)[0, 1].abs() < 0.15
    for change in ({"seed": 1}, {"epoch": 1}):
        assert not (drawn(recipe(posterize=posterize(probability=0.5)), **change).numbers == numbers).any()
    first, second = numbers.view(2, COUNT, 2)
    assert not (first == second).any()


def hashed(*parts: Any) -> Any:
    """Compute the module's hash with Python's integers: SplitMix64's mixer over one part after the other."""
    golden, word = 0x9E3779B97F4A7C15, 2**64

    def mix(x: Any) -> Any:
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % word
        x = (x ^ x >> 27) * 0x94D049BB133111EB % word
        return x ^ x >> 31

    seed, epoch, image_id, stream, view, number = parts
    state = mix((seed + golden) % word)
    for part in (epoch, image_id, stream):
        state = mix(state * golden % word ^ mix((part + golden) % word))
    return (mix((mix((state + (view + 1) * golden) % word) + (number + 1) * golden) % word) >> 11) * 2.0**-53


def test_numbers_depend_on_seed_epoch_image_the_plugins_name_and_view_alone(posterize: Any) -> None:
    stream = int.from_bytes(hashlib.sha256(b"posterize").digest()[:8], "little")
    settings = PipelineSettings(count=2, custom={"posterize": posterize(probability=0.5)})
    draws = draw(settings, SIZES[:1], torch.tensor([12345]), cache_size=24, seed=7, epoch=3, first_view=2).custom
    for view, applies, numbers in zip((2, 3), draws["posterize"].applies, draws["posterize"].numbers, strict=True):
        assert applies.item() == (hashed(7, 3, 12345, stream, view, 0) < 0.5)
        assert numbers.tolist() == [hashed(7, 3, 12345, stream, view, number) for number in (1, 2)]


def test_another_plugin_changes_nothing_of_it(posterize: Any, install_plugin: Any, images: Any) -> None:
    settings = recipe(posterize=posterize(probability=0.5, spread=0.5))
    before, alone = drawn(settings), views_of(images, settings)
    install_plugin("darken", DARKEN)
    darken = custom.settings_classes()["darken"]
    both = recipe(posterize=posterize(probability=0.5, spread=0.5), darken=darken(probability=0.5))
    assert torch.equal(drawn(both).numbers, before.numbers)
    assert torch.equal(drawn(both).applies, before.applies)
    assert not torch.equal(drawn(both, name="darken").numbers, before.numbers)
    assert torch.equal(views_of(images, settings), alone)
    assert not torch.equal(views_of(images, both), alone)


@pytest.mark.parametrize("num_threads", [1, 2, 4])
@pytest.mark.parametrize("rows", [slice(0, 1), slice(3, 70), slice(100, 400, 7)])
def test_views_are_equal_in_any_batch_and_with_any_number_of_threads(
    posterize: Any, images: Any, rows: Any, num_threads: int
) -> None:
    settings = recipe(posterize=posterize(probability=0.6, bits=3, spread=0.4))
    whole, threads = views_of(images, settings), torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        part, numbers = views_of(images, settings, rows), drawn(settings, rows)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(numbers.numbers.view(2, -1, 2), drawn(settings).numbers.view(2, COUNT, 2)[:, rows])
    # A value within rounding of a level's edge may fall on either side of it.
    assert ((whole[:, rows] - part).abs() > 1e-5).float().mean() < 1e-4


def test_pipelines_have_each_their_own(posterize: Any, images: Any) -> None:
    coarse, fine = (recipe(posterize=posterize(probability=1, bits=bits)).pipelines[0] for bits in (1, 8))
    one = dataclasses.replace
    settings = ViewSettings(pipelines=(one(coarse, count=1), one(fine, count=1), one(recipe().pipelines[0], count=1)))
    views = views_of(images, settings)
    assert [len(view.unique()) <= 6 for view in views] == [True, False, False]
    assert len(views) == 3


def test_it_is_addressed_as_our_own_steps_are(posterize: Any) -> None:
    views = methods.resolve(
        "simclr", {"views": {"preset": "byol", "custom": {"posterize": {"probability": 0.25}}}}
    ).views
    assert [pipeline.custom for pipeline in views.pipelines] == [{"posterize": posterize(probability=0.25)}] * 2
    views = methods.resolve(
        "simclr", {"views": {"pipelines": [{"custom": {"posterize": {"probability": 0.5, "bits": 2}}}, {}]}}
    ).views
    assert [pipeline.custom for pipeline in views.pipelines] == [{"posterize": posterize(probability=0.5, bits=2)}, {}]
    views = methods.resolve(
        "simclr", {"views": {"preset": "byol", "pipelines": {"1": {"custom": {"posterize": {"probability": 0.5}}}}}}
    ).views
    assert [pipeline.custom for pipeline in views.pipelines] == [{}, {"posterize": posterize(probability=0.5)}]


NO_EFFECT = "has no effect while views.custom.posterize.probability is 0"
NOT_INSTALLED = "is not an installed plugin (entry points 'manyview.transforms'); "


@pytest.mark.parametrize(
    ("overrides", "field", "message"),
    [
        ({"custom": {"posterize": {"probability": 2}}}, "custom.posterize.probability", "at most 1"),
        ({"custom": {"posterize": {"probability": 1, "bits": 2.5}}}, "custom.posterize.bits", "an integer"),
        (
            {"custom": {"posterize": {"probability": 1, "bitz": 2}}},
            "custom.posterize.bitz",
            "custom.posterize.bits'?",
        ),
        ({"custom": {"posterize": {"bits": 2}}}, "custom.posterize.bits", NO_EFFECT),
        ({"custom": {"posterize": 3}}, "custom.posterize", "must be an object"),
        ({"custom": 3}, "custom", "must be an object"),
        ({"custom": {"posterise": {}}}, "custom.posterise", f"{NOT_INSTALLED}did you mean 'posterize'?"),
        ({"custom": {"blend": {}}}, "custom.blend", f"{NOT_INSTALLED}known: posterize"),
        ({"pipelines": [{"count": 2, "custom": {"blend": {}}}]}, "pipelines[0].custom.blend", NOT_INSTALLED),
    ],
)
def test_what_is_wrong_with_it_is_told_where_it_was_written(
    posterize: Any, overrides: dict[str, Any], field: str, message: Any
) -> None:
    found = violations(overrides)
    assert list(found) == [f"views.{field}"]
    assert message in found[f"views.{field}"]


def test_without_plugins_none_is_known() -> None:
    assert "none is installed" in violations({"custom": {"posterize": {"probability": 0.5}}})["views.custom.posterize"]
    assert configuration.json_schema(PipelineSettings)["properties"]["custom"] == {
        "description": "Changes that installed packages add, applied in the order of their names.",
        "type": "object",
        "properties": {},
        "additionalProperties": False,
        "x-group": "manyview.transforms",
    }


def test_the_schema_holds_its_parameters(posterize: Any) -> None:
    whole = configuration.json_schema(methods.METHODS["simclr"].settings)
    jsonschema.Draft202012Validator.check_schema(whole)
    for place in (whole["properties"]["views"], whole["properties"]["views"]["properties"]["pipelines"]["items"]):
        found = place["properties"]["custom"]["properties"]["posterize"]
        assert found["description"] == "Fewer levels of color."
        assert found["properties"]["bits"] == {
            "description": "Bits of each color that are kept.",
            "default": 4,
            "type": "integer",
            "minimum": 1,
            "maximum": 8,
            "x-needs": ["probability"],
        }


def test_a_configuration_is_written_and_read_again(posterize: Any) -> None:
    settings = methods.resolve("simclr", {"views": {"custom": {"posterize": {"probability": 0.25, "bits": 3}}}})
    values = methods.to_json(settings)
    assert values["views"]["pipelines"][0]["custom"] == {"posterize": {"probability": 0.25, "bits": 3, "spread": 0.0}}
    assert methods.from_json(values) == settings


def test_a_configuration_of_a_plugin_that_is_gone_can_be_read_and_not_be_used() -> None:
    gone = {"posterize": {"probability": 0.25, "bits": 3}}
    values = methods.to_json(methods.resolve("simclr", {}))
    values["views"]["pipelines"][0]["custom"] = gone
    settings = methods.from_json(values)
    assert methods.to_json(settings) == values
    for use in (
        lambda: require_plugins(settings.views),
        lambda: draw(settings.views.pipelines[0], SIZES[:1], IDS[:1], cache_size=24, seed=0, epoch=0),
    ):
        with pytest.raises(PluginBroken, match=r"'posterize' .* \(manyview.transforms\): it is not installed"):
            use()


def test_settings_of_another_class_are_refused(posterize: Any) -> None:
    with pytest.raises(InvalidConfiguration, match="must be of type Settings"):
        methods.METHODS["simclr"].settings(views=recipe(posterize=BlurSettings()))
    with pytest.raises(InvalidConfiguration, match=r"custom.posterize.bits: must be an integer, at least 1"):
        methods.METHODS["simclr"].settings(views=recipe(posterize=posterize(probability=1, bits=0)))


BITS = 'setting(4, "Bits of each color that are kept.", minimum=1, maximum=8, needs=("probability",))'
BROKEN = {
    "missing_module": ("import no_such_module", "it cannot be loaded (ModuleNotFoundError)"),
    "exits": ("raise SystemExit(3)", "it cannot be loaded (SystemExit)"),
    "no_attribute": ("x = 1", "it cannot be loaded (AttributeError)"),
    "no_transform": ("TRANSFORM = 3", "it must be a Transform, not a int"),
    "Large": (POSTERIZE, "its name must start with a small letter"),
    "not_frozen": (POSTERIZE.replace("frozen=True, ", ""), "a frozen dataclass with a docstring"),
    "no_default": (POSTERIZE.replace(f" = {BITS}", ""), "its settings are wrong (TypeError)"),
    "no_setting": (POSTERIZE.replace(BITS, "4"), "its settings are wrong (KeyError)"),
    "out_of_bounds": (
        POSTERIZE.replace("setting(4", "setting(9"),
        "at least 1 and at most 8 (got 9)",
    ),
    "always_on": (POSTERIZE.replace('setting(0.0, "Probability', 'setting(0.5, "Probability'), "whose default is 0"),
    "no_probability": (POSTERIZE.replace("probability", "share"), "its settings must have a probability"),
    "no_function": (POSTERIZE.replace("change=change", "change=None"), "its change must be callable"),
    "too_many_draws": (POSTERIZE.replace("num_draws=2", "num_draws=10_000"), "num_draws from 0 to 256"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_plugin_that_cannot_be_used_is_told_and_costs_nothing_else(name: Any, install_plugin: Any) -> None:
    source, problem = BROKEN[name]
    install_plugin("posterize", POSTERIZE)
    install_plugin(name, source)
    (error,) = custom.errors()
    assert str(error).startswith(f"plugin {name!r} of {name}_plugin 1.0 (manyview.transforms): ")
    assert problem in str(error)
    assert list(custom.settings_classes()) == ["posterize"]
    assert list(configuration.json_schema(PipelineSettings)["properties"]["custom"]["properties"]) == ["posterize"]


WRONG = {
    "raises": ("1 / 0", "it failed (ZeroDivisionError)"),
    "gives_nothing": ("return None", "it returned NoneType instead of torch.float32"),
    "gives_one": ("return planes[:1]", "it returned torch.float32 (1,"),
    "gives_bytes": ("return planes.to(dtype=__import__('torch').uint8)", "it returned torch.uint8 (3,"),
    "gives_nan": ("return planes * float('nan')", "it returned values that are not finite"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_comes_back_is_checked(name: Any, install_plugin: Any, images: Any) -> None:
    line, problem = WRONG[name]
    install_plugin(name, POSTERIZE.replace("    planes = planes", f"    {line}\n    planes = planes"))
    settings = custom.settings_classes()[name](probability=1)
    with pytest.raises(PluginBroken) as caught:
        views_of(images, recipe(**{name: settings}))
    assert problem in str(caught.value)
    assert f"plugin {name!r} of {name}_plugin 1.0" in str(caught.value)


def test_lack_of_memory_is_not_blamed_on_it(install_plugin: Any, images: Any) -> None:
    line = "planes.new_empty(1 << 57)"  # more than there can be
    install_plugin("greedy", POSTERIZE.replace("    planes = planes", f"    {line}\n    planes = planes"))
    settings = custom.settings_classes()["greedy"](probability=1)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        views_of(images, recipe(greedy=settings))


def test_what_leaves_the_range_is_clamped(install_plugin: Any, images: Any) -> None:
    install_plugin(
        "bright", POSTERIZE.replace("    planes = planes", "    return planes * 100 - 10\n    planes = planes")
    )
    settings = dataclasses.replace(recipe(bright=custom.settings_classes()["bright"](probability=1)).pipelines[0])
    parameters = draw(settings, SIZES, IDS, cache_size=24, seed=0, epoch=0)
    views = apply(images, parameters, size=20, custom_settings=settings.custom)
    assert (views.min(), views.max()) == (0, 1)


def test_left_out_means_none(posterize: Any) -> None:
    plugins.leave_out()
    try:
        custom._found.cache_clear()
        assert list(custom.settings_classes()) == []
    finally:
        plugins._left_out = False


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"custom": {"posterize": {"probability": 0.25}}},
        {"custom": {"posterize": {"probability": 0}}},
        {"preset": "byol", "custom": {"posterize": {"probability": 1, "spread": 1}}},
        {"preset": "byol", "pipelines": {"1": {"custom": {"posterize": {"probability": 0.5, "bits": 7}}}}},
        {"pipelines": [{"custom": {"posterize": {"probability": 0.5, "bits": 2}}}, {}]},
        {"custom": {"posterize": {"bits": 2}}},
        {"pipelines": [{"custom": {"posterize": {"bits": 2}}}, {"custom": {"posterize": {"probability": 1}}}]},
        {"custom": {"posterize": {"probability": 2, "bits": 0}}},
        {"custom": {"posterize": {"probability": 1, "bitz": 0}, "posterise": {}}},
        {"custom": {"posterize": []}},
        {"custom": None},
    ],
)
def test_the_front_takes_the_same_as_the_library(posterize: Any, overrides: dict[str, Any]) -> None:
    """Use only the schema, as JSON."""
    entry = methods.METHODS["simclr"]
    described = Method(name="simclr", title="", paper="", schema=configuration.json_schema(entry.settings))
    catalogue = Catalogue(versions={}, devices=(), methods=(described,), backbones=())
    try:
        expected = methods.to_json(methods.resolve("simclr", {"views": overrides}))
    except InvalidConfiguration as error:
        with pytest.raises(InvalidArgument) as caught:
            catalogue.resolve("simclr", {"views": overrides})
        refused = sorted(f"config.{violation.field}" for violation in error.violations)
        assert [violation.field for violation in caught.value.violations] == refused
    else:
        assert catalogue.resolve("simclr", {"views": overrides}) == expected
