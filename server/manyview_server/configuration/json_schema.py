"""The JSON Schema of a settings class: its description, for everybody who has no torch."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from manyview_server.configuration.schema import Json, Schema
from manyview_server.configuration.setting import DefaultPreset, Names, Pattern
from manyview_server.configuration.settings_class import fields_of, item_class_of, kind_of, to_json, value_to_json

MAX_ITEMS = 64
"""The most items of a list of settings, such as pipelines. Each takes time to check, and no recipe needs as many."""

JSON_TYPES: Mapping[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
BOUNDS = {
    "minimum": "minimum",
    "exclusive_minimum": "exclusiveMinimum",
    "maximum": "maximum",
    "exclusive_maximum": "exclusiveMaximum",
}
RULES = {
    "needs": "x-needs",
    "at_most": "x-at-most",
    "at_least": "x-at-least",
    "width": "x-width",
    "fixed": "x-fixed",
    "older": "x-older",
}
"""Arguments of `setting` and the keywords that say the same."""


def json_schema(settings_class: type) -> Schema:
    """Describe a settings class: types, defaults, bounds, sentences, rules between siblings, short forms.

    If the class has a method `takes`, the whole configuration also gets ``x-takes``, for `cross_field_rules`.
    """
    schema: Json = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": settings_class.__name__,
        **_object_schema(settings_class, settings_class),
    }
    if takes := getattr(settings_class, "takes", None):
        schema["x-takes"] = takes()
    return typing.cast(Schema, schema)


def _object_schema(settings_class: type, defaults: object) -> dict[str, Json]:
    """Describe a class; the attributes of `defaults`, an object or the class itself, are the defaults of its fields."""
    properties = {
        name: {
            "description": field.metadata["description"],
            **_field_schema(getattr(defaults, name, None), hint, field.metadata),
        }
        for name, (field, hint) in fields_of(settings_class).items()
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _field_schema(default: Any, hint: Any, metadata: Mapping[str, Any]) -> dict[str, Json]:
    if "classes" in metadata:
        return _plugins_schema(metadata)
    if dataclasses.is_dataclass(hint):
        nested = _object_schema(type(default), default)
        return _with_short_forms(nested, default, metadata) if metadata["presets"] else nested
    schema = {"default": value_to_json(default)}
    for argument, keyword in RULES.items():
        if rule := metadata[argument]:
            schema[keyword] = list(rule) if isinstance(rule, tuple) else rule
    if only := metadata["only"]:
        schema["x-only"] = {sibling: _names(names) for sibling, names in only.items()}
    if item_class := item_class_of(hint):
        items = _object_schema(item_class, item_class)
        return {**schema, "type": "array", "items": items, "minItems": 1, "maxItems": MAX_ITEMS}
    return {**schema, **_value_schema(hint, metadata)}


def _value_schema(hint: Any, metadata: Mapping[str, Any]) -> dict[str, Json]:
    """Describe the values of a field that holds no settings."""
    kind, is_nullable = kind_of(hint)
    bounds = {keyword: metadata[name] for name, keyword in BOUNDS.items() if metadata[name] is not None}
    if typing.get_origin(kind) is tuple:
        length = len(typing.get_args(kind))
        return {"type": "array", "items": {"type": "number", **bounds}, "minItems": length, "maxItems": length}
    choices = list(typing.get_args(kind)) if typing.get_origin(kind) is Literal else _names(metadata["choices"])
    fitting = _pattern_schema(metadata["pattern"]) if metadata["pattern"] else {}
    if choices and fitting:
        return {"type": "string", "anyOf": [{"enum": choices}, fitting]}
    if choices:
        return {"type": "string", "enum": choices}
    name = JSON_TYPES[kind]
    return {"type": [name, "null"] if is_nullable else name, **bounds, **fitting}


def _pattern_schema(pattern: Pattern) -> dict[str, Json]:
    # $ alone would let a line end pass.
    return {"pattern": rf"^(?:{pattern.regex})(?!\n)$", "x-words": pattern.words}


def _plugins_schema(metadata: Mapping[str, Any]) -> dict[str, Json]:
    """Describe settings by name, each by the first line of its class's docstring."""
    properties = {}
    for name, settings_class in metadata["classes"]().items():
        summary = (inspect.getdoc(settings_class) or "").partition("\n")[0]
        properties[name] = {"description": summary, **_object_schema(settings_class, settings_class)}
    return {"type": "object", "properties": properties, "additionalProperties": False, "x-group": metadata["group"]}


def _with_short_forms(schema: dict[str, Json], default: Any, metadata: Mapping[str, Any]) -> dict[str, Json]:
    """Return an object's schema with a preset's name and the fields of its list's items as further properties."""
    presets, chosen = metadata["presets"], metadata["default_preset"]
    ((name, item_class),) = (
        (name, item) for name, (_, hint) in fields_of(type(default)).items() if (item := item_class_of(hint))
    )
    plain = to_json(item_class())
    items = {key: [_sparse(to_json(item), plain) for item in getattr(preset, name)] for key, preset in presets.items()}
    preset = {"description": f"Start from these {name}.", "type": "string", "enum": list(presets), "x-short": True}
    own = [to_json(item) for item in getattr(default, name)]
    small = [to_json(item) for item in getattr(chosen.small_value, name)] if chosen else own
    for_all = {
        key: {
            **(field if "x-group" in field else _shared(field, _all_of(own, key), _all_of(small, key))),
            "x-short": True,
        }
        for key, field in schema["properties"][name]["items"]["properties"].items()
        if "properties" in field
    }
    properties = {"preset": preset, **schema["properties"], **for_all}
    described = {**schema, "properties": properties, "x-list": name, "x-presets": items}
    return {**described, "x-default-preset": _default_preset(chosen)} if chosen else described


def _default_preset(chosen: DefaultPreset) -> dict[str, Json]:
    return {"sibling": chosen.sibling, "below": chosen.below, "small": chosen.small, "large": chosen.large}


def _all_of(items: Sequence[Mapping[str, Json]], key: str) -> list[Mapping[str, Json]]:
    return [item[key] for item in items]


def _shared(
    schema: Mapping[str, Json], items: Sequence[Mapping[str, Json]], small: Sequence[Mapping[str, Json]]
) -> dict[str, Json]:
    """Return an object's schema whose defaults are what all `items` have, and missing where they differ.

    Args:
        small: the items of the preset that is the default while a sibling is small.
    """
    properties: dict[str, Json] = {}
    for name, field in schema["properties"].items():
        rest = {key: value for key, value in field.items() if key != "default"}
        default, small_default = _shared_default(items, name), _shared_default(small, name)
        if small_default and small_default != default:
            rest["x-small-default"] = small_default["default"]
        properties[name] = {**default, **rest}
    return {**schema, "properties": properties}


def _shared_default(items: Sequence[Mapping[str, Json]], name: str) -> dict[str, Json]:
    values = [item[name] for item in items]
    return {"default": values[0]} if values.count(values[0]) == len(values) else {}


def _sparse(value: Mapping[str, Json], plain: Mapping[str, Json]) -> dict[str, Json]:
    """Return what differs from `plain`."""
    return {
        name: _sparse(item, plain[name]) if isinstance(item, Mapping) else item
        for name, item in value.items()
        if item != plain[name]
    }


def _names(names: Names) -> list[str]:
    return list(names() if callable(names) else names)
