"""The catalogue is read from a worker, and configurations are completed or refused with every reason."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from typing import Any

import pytest

from manyview_server.configuration.schema_violations import MAX_VIOLATIONS
from manyview_server.errors import InvalidArgument
from manyview_server.supervise.catalogue import catalogue as catalogue_module
from manyview_server.supervise.catalogue.catalogue import Catalogue, CatalogueError, Device, Method, describe

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "batch_size": {"type": "integer", "default": 256, "minimum": 2, "maximum": 65536},
        "temperature": {"type": "number", "default": 0.5, "exclusiveMinimum": 0},
        "decode_size": {"type": ["integer", "null"], "default": None, "minimum": 8},
        "stem": {"type": "string", "default": "auto", "enum": ["auto", "imagenet", "small"]},
        "backbone": {
            "type": "string",
            "default": "resnet18",
            "anyOf": [
                {"enum": ["resnet18", "resnet50"]},
                {"pattern": r"^(?:(timm)/[a-z0-9_]+)(?!\n)$", "x-words": "timm/NAME"},
            ],
        },
        "weights": {"type": ["string", "null"], "default": None, "pattern": "^[a-z]+$", "x-words": "a name"},
        "symmetric": {"type": "boolean", "default": True},
        "views": {
            "type": "object",
            "properties": {
                "blur": {
                    "type": "object",
                    "properties": {"probability": {"type": "number", "default": 0.5, "minimum": 0, "maximum": 1}},
                    "additionalProperties": False,
                },
                "mean": {
                    "type": "array",
                    "items": {"type": "number", "minimum": 0, "maximum": 1},
                    "default": [0.5, 0.4, 0.3],
                    "minItems": 3,
                    "maxItems": 3,
                },
            },
            "additionalProperties": False,
        },
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
DEFAULTS = {
    "batch_size": 256,
    "temperature": 0.5,
    "decode_size": None,
    "stem": "auto",
    "backbone": "resnet18",
    "weights": None,
    "symmetric": True,
    "views": {"blur": {"probability": 0.5}, "mean": [0.5, 0.4, 0.3]},
}


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue.parse(json.dumps(DOCUMENT))


def violations(catalogue: Catalogue, overrides: dict[str, Any], method: str = "moco") -> dict[str, str]:
    with pytest.raises(InvalidArgument) as caught:
        catalogue.resolve(method, overrides)
    assert caught.value.reason == "FIELD_INVALID"
    return {v.field: v.description for v in caught.value.violations}


def test_nothing_given_is_the_defaults(catalogue):
    assert catalogue.resolve("moco", {}) == DEFAULTS


def test_overrides_go_over_the_defaults_however_deep(catalogue):
    resolved = catalogue.resolve("moco", {"batch_size": 64, "views": {"blur": {"probability": 0}}})
    assert resolved == DEFAULTS | {"batch_size": 64, "views": {"blur": {"probability": 0}, "mean": [0.5, 0.4, 0.3]}}


def test_whole_floats_become_integers_only_where_integers_are_wanted(catalogue):
    resolved = catalogue.resolve("moco", {"batch_size": 64.0, "decode_size": 32.0, "temperature": 1.0})
    assert [type(resolved[name]) for name in ("batch_size", "decode_size", "temperature")] == [int, int, float]


def test_a_resolved_configuration_shares_nothing_with_the_defaults(catalogue):
    catalogue.resolve("moco", {})["views"]["mean"][0] = 9.0
    assert catalogue.resolve("moco", {}) == DEFAULTS


def test_a_text_may_be_one_of_some_names_or_fit_a_pattern(catalogue):
    for name in ("resnet50", "timm/vit_tiny"):
        assert catalogue.resolve("moco", {"backbone": name})["backbone"] == name
    assert violations(catalogue, {"backbone": "timm/vit_tiny\n"}).keys() == {"config.backbone"}


def test_a_resolved_configuration_is_accepted_and_stays_the_same(catalogue):
    once = catalogue.resolve("moco", {"temperature": 0.1, "views": {"mean": [0, 0, 0]}})
    assert catalogue.resolve("moco", once) == once


@pytest.mark.parametrize(
    ("overrides", "field", "description"),
    [
        ({"batch_size": 1}, "batch_size", "must be an integer, at least 2 and at most 65,536 (got 1)"),
        ({"batch_size": 2.5}, "batch_size", "must be an integer, at least 2 and at most 65,536 (got 2.5)"),
        ({"batch_size": True}, "batch_size", "must be an integer, at least 2 and at most 65,536 (got true)"),
        ({"batch_size": None}, "batch_size", "must be an integer, at least 2 and at most 65,536 (got null)"),
        ({"decode_size": 7.0}, "decode_size", "must be an integer, at least 8, or null (got 7)"),
        ({"temperature": 0}, "temperature", "must be a number, above 0 (got 0)"),
        ({"temperature": float("nan")}, "temperature", "must be a finite number (got nan)"),
        ({"temperature": float("inf")}, "temperature", "must be a finite number (got inf)"),
        ({"symmetric": 1}, "symmetric", "must be true or false (got 1)"),
        ({"views": 4}, "views", "must be an object (got 4)"),
        ({"bach_size": 4}, "bach_size", "'bach_size' is not known; did you mean 'batch_size'?"),
        ({"views": {"blurr": {}}}, "views.blurr", "'blurr' is not known; did you mean 'blur'?"),
        ({"probability": 1}, "probability", "'probability' is not known; did you mean 'views.blur.probability'?"),
        ({"views": {"zzz": 1}}, "views.zzz", "'zzz' is not known; known: blur, mean"),
        (
            {"stem": "smal"},
            "stem",
            "must be one of 'auto', 'imagenet', 'small' (got 'smal'); did you mean 'small'?",
        ),
        (
            {"backbone": "resnt50"},
            "backbone",
            "must be one of 'resnet18', 'resnet50' or timm/NAME (got 'resnt50'); did you mean 'resnet50'?",
        ),
        (
            {"backbone": "timm/../x"},
            "backbone",
            "must be one of 'resnet18', 'resnet50' or timm/NAME (got 'timm/../x')",
        ),
        ({"backbone": 3}, "backbone", "must be one of 'resnet18', 'resnet50' or timm/NAME (got 3)"),
        ({"weights": "../x"}, "weights", "must be a name, or null (got '../x')"),
        (
            {"views": {"blur": {"probability": 1.5}}},
            "views.blur.probability",
            "must be a number, at least 0 and at most 1 (got 1.5)",
        ),
        (
            {"views": {"mean": [1, 2, 0]}},
            "views.mean[1]",
            "must be a number, at least 0 and at most 1 (got 2)",
        ),
        (
            {"views": {"mean": [1]}},
            "views.mean",
            "must be a list of exactly 3, each a number, at least 0 and at most 1 (got [1])",
        ),
    ],
)
def test_a_violation_names_field_value_and_what_is_allowed(catalogue, overrides, field, description):
    assert violations(catalogue, overrides) == {f"config.{field}": description}


def test_all_violations_are_told_at_once(catalogue):
    wrong = {"batch_size": 1, "temperature": float("nan"), "sead": 1, "views": {"blur": {"probability": -1}}}
    assert list(violations(catalogue, wrong)) == [
        "config.batch_size",
        "config.sead",
        "config.temperature",
        "config.views.blur.probability",
    ]


def test_a_long_value_is_shortened(catalogue):
    assert len(violations(catalogue, {"stem": "x" * 10_000})["config.stem"]) < 200


def test_an_unknown_method_is_told_with_the_nearest_one(catalogue):
    assert violations(catalogue, {}, "mocco") == {"method": "'mocco' is not known; did you mean 'moco'?"}


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [("auto", ("cuda:0", "cuda:1")), ("cpu", ("cpu",)), ("cuda", ("cuda:0", "cuda:1")), ("cuda:1", ("cuda:1",))],
)
def test_devices_are_chosen_by_name(catalogue, wanted, chosen):
    assert catalogue.choose_devices(wanted) == chosen


def test_auto_is_the_cpu_where_there_is_no_gpu():
    cpu = Device(name="cpu", description="", memory_bytes=1)
    assert Catalogue(versions={}, devices=(cpu,), methods=(), backbones=()).choose_devices("auto") == ("cpu",)
    with pytest.raises(CatalogueError, match="no device 'cuda'; there is cpu"):
        Catalogue(versions={}, devices=(cpu,), methods=(), backbones=()).choose_devices("cuda")


async def test_the_catalogue_is_what_the_worker_prints(scripted, catalogue):
    assert await describe(scripted(describe=json.dumps(DOCUMENT))) == catalogue


async def test_a_worker_that_fails_to_describe_is_told_with_what_it_printed():
    command = (sys.executable, "-S", "-c", "raise SystemExit('libcuda is broken')")
    with pytest.raises(CatalogueError, match=r"exit status 1(?s:.*)libcuda is broken"):
        await describe(command)


async def test_a_worker_that_takes_too_long_to_describe_is_ended():
    started = time.monotonic()
    with pytest.raises(CatalogueError, match=r"longer than 0\.2 seconds"):
        await describe((sys.executable, "-S", "-c", "import time; time.sleep(600)"), deadline_s=0.2)
    assert time.monotonic() - started < 10


async def test_a_missing_program_is_a_catalogue_error():
    with pytest.raises(CatalogueError, match="no-such-program"):
        await describe(("/no-such-program",))


PLUGINS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "posterize": {
            "type": "object",
            "properties": {
                "probability": {"type": "number", "default": 0.0, "minimum": 0, "maximum": 1},
                "bits": {"type": "integer", "default": 4, "minimum": 1, "x-needs": ["probability"]},
            },
            "additionalProperties": False,
        }
    },
    "additionalProperties": False,
    "x-group": "manyview.transforms",
}


@pytest.fixture
def with_plugins() -> Catalogue:
    schema = {"type": "object", "properties": {"custom": PLUGINS}, "additionalProperties": False}
    return Catalogue.parse(json.dumps(DOCUMENT | {"methods": [{**DOCUMENT["methods"][0], "schema": schema}]}))


def test_of_plugins_a_configuration_holds_what_is_not_as_by_default(with_plugins):
    resolve = with_plugins.resolve
    assert resolve("moco", {}) == {"custom": {}}
    used = {"custom": {"posterize": {"probability": 0.5, "bits": 4}}}
    assert resolve("moco", {"custom": {"posterize": {"probability": 0.5}}}) == used
    assert resolve("moco", {}, used) == used
    assert resolve("moco", {"custom": {"posterize": {"probability": 0}}}, used) == {"custom": {}}


def test_a_plugin_that_is_not_installed_is_told_in_a_new_configuration_and_in_one_of_an_earlier_day(with_plugins):
    text = (
        "'posterise' is no plugin that is installed on the server (entry points 'manyview.transforms'); "
        "did you mean 'posterize'?"
    )
    old = {"custom": {"posterise": {"probability": 0.5}}}
    assert violations(with_plugins, old) == {"config.custom.posterise": text}
    with pytest.raises(InvalidArgument) as caught:
        with_plugins.resolve("moco", {}, old)
    assert [(v.field, v.description) for v in caught.value.violations] == [("config.custom.posterise", text)]


def test_a_plugins_parameter_that_has_no_effect_is_refused(with_plugins):
    found = violations(with_plugins, {"custom": {"posterize": {"bits": 2}}})
    assert found == {"config.custom.posterize.bits": "has no effect while custom.posterize.probability is 0 (got 2)"}


async def test_where_describing_fails_with_plugins_it_is_done_without_them(monkeypatch, caplog):
    text = json.dumps(DOCUMENT)
    program = f"import sys; sys.exit(7) if '--without-plugins' not in sys.argv else print({text!r})"
    command = (sys.executable, "-S", "-c", program)
    with pytest.raises(CatalogueError, match="exit status 7"):
        await describe(command)
    monkeypatch.setattr(catalogue_module, "packages_with_plugins", lambda: ["posterize"])
    assert await describe(command) == dataclasses.replace(Catalogue.parse(text), without_plugins=True)
    assert "all plugins are left out, of posterize: describing them failed" in caplog.text


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"versions": {}, "devices": [{}], "methods": [], "backbones": []}'])
def test_a_description_of_another_shape_is_refused(text):
    with pytest.raises(CatalogueError, match="not as expected"):
        Catalogue.parse(text)


def of_properties(properties: dict[str, Any]) -> Catalogue:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    method = Method(name="a", title="A", paper="", schema=schema)
    return Catalogue(versions={}, devices=(), methods=(method,), backbones=())


def test_at_most_a_hundred_violations_of_a_configuration_are_named() -> None:
    catalogue = of_properties({"epochs": {"type": "integer"}})
    with pytest.raises(InvalidArgument) as refused:
        catalogue.resolve("a", {f"k{number:04}": 1 for number in range(5000)})
    assert len(refused.value.violations) == MAX_VIOLATIONS
    assert refused.value.violations[0].field == "config.k0000"


def test_what_is_given_for_all_items_of_a_list_is_counted_once_for_each() -> None:
    numbers = {"type": "array", "items": {"type": "number"}}
    items = {"type": "object", "properties": {"custom": {"type": "object", "properties": {"numbers": numbers}}}}
    for_all = {**items["properties"]["custom"], "x-short": True}
    views = {
        "type": "object",
        "properties": {"pipelines": {"type": "array", "items": items, "default": [{}] * 64}, "custom": for_all},
        "x-list": "pipelines",
        "x-presets": {},
    }
    catalogue = of_properties({"views": views})
    fits = catalogue.resolve("a", {"views": {"custom": {"numbers": [1.5] * 100}}})
    assert [len(item["custom"]["numbers"]) for item in fits["views"]["pipelines"]] == [100] * 64
    with pytest.raises(InvalidArgument, match="has more than 8,192 values"):
        catalogue.resolve("a", {"views": {"custom": {"numbers": [1.5] * 200}}})
