"""Configurations are completed, or refused with every reason."""

from __future__ import annotations

from typing import Any

import pytest

from manyview_server.configuration import InvalidConfiguration
from manyview_server.configuration.field_check import MAX_VIOLATIONS
from manyview_server.configuration.resolution import check_continuation, resolve

SCHEMA: Any = {
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


def violations(given: dict[str, Any], base: dict[str, Any] | None = None, schema: Any = SCHEMA) -> dict[str, str]:
    with pytest.raises(InvalidConfiguration) as caught:
        resolve(schema, given, base)
    return {violation.field: violation.description for violation in caught.value.violations}


def test_nothing_given_is_the_defaults() -> None:
    assert resolve(SCHEMA, {}) == DEFAULTS


def test_overrides_go_over_the_defaults_however_deep() -> None:
    resolved = resolve(SCHEMA, {"batch_size": 64, "views": {"blur": {"probability": 0}}})
    assert resolved == DEFAULTS | {"batch_size": 64, "views": {"blur": {"probability": 0}, "mean": [0.5, 0.4, 0.3]}}


def test_whole_floats_become_integers_only_where_integers_are_wanted() -> None:
    resolved = resolve(SCHEMA, {"batch_size": 64.0, "decode_size": 32.0, "temperature": 1.0})
    assert [type(resolved[name]) for name in ("batch_size", "decode_size", "temperature")] == [int, int, float]


def test_a_resolved_configuration_shares_nothing_with_the_defaults() -> None:
    resolve(SCHEMA, {})["views"]["mean"][0] = 9.0
    assert resolve(SCHEMA, {}) == DEFAULTS


def test_a_text_may_be_one_of_some_names_or_fit_a_pattern() -> None:
    for name in ("resnet50", "timm/vit_tiny"):
        assert resolve(SCHEMA, {"backbone": name})["backbone"] == name
    assert violations({"backbone": "timm/vit_tiny\n"}).keys() == {"backbone"}


def test_a_resolved_configuration_is_accepted_and_stays_the_same() -> None:
    once = resolve(SCHEMA, {"temperature": 0.1, "views": {"mean": [0, 0, 0]}})
    assert resolve(SCHEMA, once) == once


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
        ({"views": {"blurr": {}}}, "views.blurr", "'blurr' is not known; did you mean 'views.blur'?"),
        ({"probability": 1}, "probability", "'probability' is not known; did you mean 'views.blur.probability'?"),
        ({"views": {"zzz": 1}}, "views.zzz", "'zzz' is not known; known: blur, mean"),
        ({"views": {"temprature": 1}}, "views.temprature", "'temprature' is not known; did you mean 'temperature'?"),
        ({"probabilty": 1}, "probabilty", "'probabilty' is not known; did you mean 'views.blur.probability'?"),
        (
            {"views": {"blur": {"Probability": 1}}},
            "views.blur.Probability",
            "'Probability' is not known; did you mean 'views.blur.probability'?",
        ),
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
def test_a_violation_names_field_value_and_what_is_allowed(
    overrides: dict[str, Any], field: str, description: str
) -> None:
    assert violations(overrides) == {f"{field}": description}


def test_all_violations_are_told_at_once() -> None:
    wrong = {"batch_size": 1, "temperature": float("nan"), "sead": 1, "views": {"blur": {"probability": -1}}}
    assert list(violations(wrong)) == [
        "batch_size",
        "sead",
        "temperature",
        "views.blur.probability",
    ]


@pytest.mark.parametrize(
    ("short", "meant"),
    [("bs", "batch_size"), ("ds", "decode_size"), ("temp", "temperature"), ("prob", "views.blur.probability")],
)
def test_an_abbreviation_is_understood(short: str, meant: str) -> None:
    assert violations({short: 1}) == {short: f"'{short}' is not known; did you mean {meant!r}?"}


def test_the_known_names_are_listed_once() -> None:
    found = violations({"qqq": 1, "zzz": 1, "views": {"www": 1}})
    assert found["qqq"] == "'qqq' is not known; known: " + ", ".join(SCHEMA["properties"])
    assert found["zzz"] == "'zzz' is not known"
    assert found["views.www"] == "'www' is not known; known: blur, mean"


def test_a_long_value_is_shortened() -> None:
    assert len(violations({"stem": "x" * 10_000})["stem"]) < 200


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


WITH_PLUGINS: Any = {"type": "object", "properties": {"custom": PLUGINS}, "additionalProperties": False}


def test_of_plugins_a_configuration_holds_what_is_not_as_by_default() -> None:
    assert resolve(WITH_PLUGINS, {}) == {"custom": {}}
    used = {"custom": {"posterize": {"probability": 0.5, "bits": 4}}}
    assert resolve(WITH_PLUGINS, {"custom": {"posterize": {"probability": 0.5}}}) == used
    assert resolve(WITH_PLUGINS, {}, used) == used
    assert resolve(WITH_PLUGINS, {"custom": {"posterize": {"probability": 0}}}, used) == {"custom": {}}


def test_a_plugin_that_is_not_installed_is_told_in_a_new_configuration_and_in_one_of_an_earlier_day() -> None:
    text = "'posterise' is not an installed plugin (entry points 'manyview.transforms'); did you mean 'posterize'?"
    old = {"custom": {"posterise": {"probability": 0.5}}}
    assert violations(old, schema=WITH_PLUGINS) == {"custom.posterise": text}
    assert violations({}, old, schema=WITH_PLUGINS) == {"custom.posterise": text}
    assert resolve(WITH_PLUGINS, {}, old, keep_missing_plugins=True) == old


def test_a_plugins_parameter_that_has_no_effect_is_refused() -> None:
    found = violations({"custom": {"posterize": {"bits": 2}}}, schema=WITH_PLUGINS)
    assert found == {"custom.posterize.bits": "has no effect while custom.posterize.probability is 0 (got 2)"}


def test_a_stored_configuration_is_checked_like_a_new_one() -> None:
    assert violations({"symmetric": False}, {"batch_size": 1, "gone": 3}) == {
        "batch_size": "must be an integer, at least 2 and at most 65,536 (got 1)",
        "gone": "'gone' is not known; known: " + ", ".join(DEFAULTS),
    }


def object_with(properties: dict[str, Any]) -> Any:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def test_at_most_a_hundred_violations_of_a_configuration_are_named() -> None:
    found = violations({f"k{number:04}": 1 for number in range(5000)}, schema=object_with({"a": {"type": "integer"}}))
    assert len(found) == MAX_VIOLATIONS
    assert next(iter(found)) == "k0000"


def test_what_is_given_for_all_items_of_a_list_is_counted_once_for_each() -> None:
    numbers = {"type": "array", "items": {"type": "number"}}
    items = object_with({"custom": object_with({"numbers": numbers})})
    for_all = {**items["properties"]["custom"], "x-short": True}
    views = {
        **object_with({"pipelines": {"type": "array", "items": items, "default": [{}] * 64}, "custom": for_all}),
        "x-list": "pipelines",
        "x-presets": {},
    }
    schema = object_with({"views": views})
    fits = resolve(schema, {"views": {"custom": {"numbers": [1.5] * 100}}})
    assert [len(item["custom"]["numbers"]) for item in fits["views"]["pipelines"]] == [100] * 64
    with pytest.raises(InvalidConfiguration, match="has more than 8,192 values"):
        resolve(schema, {"views": {"custom": {"numbers": [1.5] * 200}}})


LAMP = object_with({"on": {"type": "integer", "default": 0}, "watts": {"type": "number", "x-needs": ["on"]}})
LAMP["properties"]["watts"] |= {"default": 60, "x-at-most": "most"}
LAMP["properties"]["most"] = {"type": "number", "default": 100}
BULB = object_with({"bulb": LAMP})
BULBS = object_with({"lamps": {"type": "array", "items": BULB, "default": [{}, {"bulb": {"on": 1}}]}})
BULBS["properties"]["bulb"] = {**LAMP, "x-short": True}
HOUSE = object_with({"room": {**BULBS, "x-list": "lamps", "x-presets": {}}})


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"bulb": {"watts": 40}}, {}),  # one of the two lamps is on
        (
            {"bulb": {"watts": 40}, "lamps": {"1": {"bulb": {"on": 0}}}},
            {"room.bulb.watts": "has no effect while room.bulb.on is 0 (got 40)"},
        ),
        (
            {"lamps": {"0": {"bulb": {"watts": 40}}}},
            {"room.lamps[0].bulb.watts": "has no effect while room.lamps[0].bulb.on is 0 (got 40)"},
        ),
        (
            {"lamps": [{"bulb": {"on": 1, "watts": 200}}]},
            {"room.lamps[0].bulb.watts": "must be at most room.lamps[0].bulb.most, which is 100 (got 200)"},
        ),
        (
            {"bulb": {"most": 10}, "lamps": {"0": {"bulb": {"watts": 5, "on": 1}}}},
            {"room.bulb.watts": "must be at most room.bulb.most, which is 10 (got 60)"},
        ),
    ],
)
def test_what_is_given_for_all_items_needs_an_effect_in_one_of_them_and_a_bound_holds_in_each(
    given: dict[str, Any], found: dict[str, Any]
) -> None:
    if found:
        assert violations({"room": given}, schema=HOUSE) == found
    else:
        resolve(HOUSE, {"room": given})


NEWER: Any = {
    "type": "object",
    "properties": {
        "background": {"type": "string", "default": "white", "enum": ["white", "none"], "x-older": "none"},
        "epochs": {"type": "integer", "default": 1},
    },
    "additionalProperties": False,
}


@pytest.mark.parametrize(("stored", "background"), [({"epochs": 5}, "none"), ({"background": "white"}, "white")])
def test_a_field_that_an_older_configuration_lacks_has_the_value_that_it_had_then(
    stored: dict[str, Any], background: str
) -> None:
    assert resolve(NEWER, {}, stored)["background"] == background
    assert resolve(NEWER, {"background": "white"}, stored)["background"] == "white"
    assert resolve(NEWER, {"epochs": 2})["background"] == "white"


def test_a_continued_run_keeps_what_its_older_configuration_stands_for() -> None:
    fixed = {**NEWER["properties"]["background"], "x-fixed": True}
    schema: Any = {**NEWER, "properties": {**NEWER["properties"], "background": fixed}}
    assert check_continuation(schema, {"epochs": 1}, {"background": "none", "epochs": 2}) == []
    (violation,) = check_continuation(schema, {"epochs": 1}, {"background": "white", "epochs": 2})
    assert violation.field == "background"
