"""Methods of installed packages: by name, with settings of their own, like ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from manyview_server import configuration
from manyview_server.configuration import InvalidConfiguration
from manyview_server.learn import methods
from manyview_server.learn.methods import METHODS, build_method, from_plugin
from manyview_server.learn.plugins import PluginBroken

EXAMPLE = (Path(__file__).parents[4] / "examples" / "plugin_method" / "rotation_prediction.py").read_text()
NAME = "rotation_prediction"


@pytest.fixture
def rotation(install_plugin: Any) -> None:
    install_plugin(NAME, EXAMPLE, group=from_plugin.GROUP, attribute="METHOD")


def test_it_is_known_by_its_name_behind_ours(rotation: Any) -> None:
    assert methods.names() == (*METHODS, NAME)
    assert methods.entry(NAME).title == "RotNet"
    assert methods.plugin_errors() == []
    properties = configuration.json_schema(methods.entry(NAME).settings)["properties"]
    assert properties["label_smoothing"]["maximum"] == 0.9
    assert properties["method"]["enum"] == [NAME]


def test_its_settings_are_resolved_written_and_read_like_ours(rotation: Any) -> None:
    settings = methods.resolve(
        NAME, {"label_smoothing": 0.1, "backbone": "resnet9", "views": {"blur": {"probability": 1}}}
    )
    assert (settings.label_smoothing, settings.views.num_views) == (0.1, 1)  # type: ignore[attr-defined]
    assert methods.from_json(methods.to_json(settings)) == settings
    with pytest.raises(InvalidConfiguration, match=r"label_smoothing: .*, at least 0 and at most 0.9 \(got 2\)"):
        methods.resolve(NAME, {"label_smoothing": 2})
    with pytest.raises(InvalidConfiguration, match="takes 1 to 2 views"):
        methods.resolve(NAME, {"views": {"pipelines": [{"count": 3}]}})


def test_it_is_built_and_embeds(rotation: Any) -> None:
    settings = methods.resolve(NAME, {"backbone": "resnet9", "backbone_width": 0.125, "image_size": 16})
    one, other = (build_method(settings, 100) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert one.embed(torch.rand(3, 3, 16, 16)).shape == (3, 64)


def test_an_unknown_method_is_told_with_the_nearest_one_plugins_among_them(rotation: Any) -> None:
    with pytest.raises(InvalidConfiguration, match="did you mean 'rotation_prediction'"):
        methods.resolve("rotation_predictions", {})
    with pytest.raises(InvalidConfiguration, match=r"known: simclr, .*rotation_prediction"):
        methods.resolve("zzz", {})


def test_a_configuration_whose_method_is_gone_names_it() -> None:
    with pytest.raises(
        PluginBroken, match=r"plugin 'vanished' of no package \(manyview.methods\): it is not installed"
    ):
        methods.from_json({"method": "vanished"})


def named(name: Any, before: Any = "", after: Any = "") -> Any:
    """The example under another name, and with a change."""
    return EXAMPLE.replace(NAME, name).replace(before, after)


BROKEN = {
    "exits": ("raise SystemExit", "it cannot be loaded (SystemExit)"),
    "no_entry": ("METHOD = 3", "it must be a MethodEntry, but is a int"),
    "other_name": (EXAMPLE, "the method of its settings must be 'other_name', but is 'rotation_prediction'"),
    "simclr": (EXAMPLE, "a method of that name already exists"),
    "no_settings": (named("no_settings", "settings=RotationSettings", "settings=int"), "of TrainSettings, but are int"),
    "bad_default": (
        named("bad_default", "setting(0.0,", "setting(7.0,"),
        "its settings are wrong (InvalidConfiguration)",
    ),
    "plain_field": (
        named("plain_field", "    min_views", "    n: int = 3\n    min_views"),
        "settings are wrong (KeyError)",
    ),
    "Large": (named("Large"), "its name must start with a small letter"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_method_that_cannot_be_used_is_told_and_costs_nothing_else(
    name: Any, rotation: Any, install_plugin: Any
) -> None:
    source, problem = BROKEN[name]
    install_plugin(name, source, group=from_plugin.GROUP, attribute="METHOD")
    (error,) = methods.plugin_errors()
    assert str(error).startswith(f"plugin {name!r} of {name}_plugin 1.0 (manyview.methods): ")
    assert problem in str(error)
    assert methods.names() == (*METHODS, NAME)
    assert methods.entry("simclr") is METHODS["simclr"], "our own stays"


BUILDS = {
    "builds_nothing": ("None", "it returned a NoneType and not a Method with an Encoder"),
    "builds_other": ("nn.Linear(1, 1)", "it returned a Linear and not a Method with an Encoder"),
    "fails": ("1 / 0", "building it failed (ZeroDivisionError)"),
}


@pytest.mark.parametrize("name", BUILDS)
def test_what_it_builds_is_checked(name: Any, install_plugin: Any) -> None:
    expression, problem = BUILDS[name]
    source = EXAMPLE.replace(NAME, name).replace("build=RotationPrediction", f"build=lambda settings: {expression}")
    install_plugin(name, source, group=from_plugin.GROUP, attribute="METHOD")
    with pytest.raises(PluginBroken) as caught:
        build_method(methods.resolve(name, {}), 100)
    assert problem in str(caught.value)


def test_a_value_error_of_its_own_is_for_the_user(install_plugin: Any) -> None:
    source = EXAMPLE.replace(NAME, "choosy").replace(
        "        super().__init__()", '        raise ValueError("image_size must be even")'
    )
    install_plugin("choosy", source, group=from_plugin.GROUP, attribute="METHOD")
    with pytest.raises(ValueError, match=r"^image_size must be even$"):
        build_method(methods.resolve("choosy", {}), 100)


def test_what_goes_wrong_in_a_step_is_blamed_on_it() -> None:
    with (
        pytest.raises(PluginBroken, match=rf"'{NAME}' .*\(manyview.methods\): a step of it failed \(KeyError\)$"),
        methods.name_plugin_in_errors(NAME),
    ):
        {}["gone"]
    with pytest.raises(KeyError), methods.name_plugin_in_errors("simclr"):
        {}["gone"]


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_lack_of_memory_is_blamed_on_no_plugin(error: Any) -> None:
    with pytest.raises(type(error)) as caught, methods.name_plugin_in_errors(NAME):
        raise error
    assert caught.value is error
