"""JSON Schema of a settings class."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from manyview_server.configuration.field import (
    BOUNDS,
    JSON_TYPES,
    choices_of,
    fields_of,
    item_class_of,
    kind_of,
    names_of,
)
from manyview_server.configuration.values import as_json, to_json

MAX_ITEMS = 64
"""The most items of a list of settings, such as pipelines. Each takes time to check, and no recipe needs as many."""


def json_schema(settings_class: type) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of `settings_class`: types, defaults, bounds, descriptions; nothing else is allowed.

    It refuses what is wrong with any one field. Rules between fields and short forms are its ``x-`` keywords, which
    `short_forms` reads.
    """
    schema = _object_schema(settings_class())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": settings_class.__name__, **schema}


def _object_schema(settings: object) -> dict[str, Any]:
    properties = {
        name: {
            "description": field.metadata["description"],
            **_field_schema(getattr(settings, name), hint, field.metadata),
        }
        for name, (field, hint) in fields_of(type(settings)).items()
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _field_schema(default: Any, hint: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    if "classes" in metadata:
        return _by_name_schema(metadata)
    if dataclasses.is_dataclass(hint):
        nested = _object_schema(default)
        return nested if metadata["presets"] is None else _with_short_forms(nested, default, metadata["presets"])
    only = {other: list(names_of(choices)) for other, choices in metadata["only"].items()}
    rules: dict[str, Any] = {"x-needs": list(metadata["needs"]), "x-only": only}
    rules |= {"x-at-most": metadata["at_most"], "x-at-least": metadata["at_least"], "x-width": metadata["width"]}
    kept = {"x-fixed": True} if metadata["fixed"] else {}
    kept |= {key: rule for key, rule in rules.items() if rule}
    if item_class := item_class_of(hint):
        items = _object_schema(item_class())
        bounds = {"minItems": 1, "maxItems": MAX_ITEMS}
        return {"default": as_json(default), **kept, "type": "array", "items": items, **bounds}
    return {"default": as_json(default), **kept, **_value_schema(hint, metadata)}


def _by_name_schema(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Of settings by name, each described by the first line of its class."""
    properties = {}
    for name, settings_class in metadata["classes"]().items():
        summary = (inspect.getdoc(settings_class) or "").partition("\n")[0]
        properties[name] = {"description": summary, **_object_schema(settings_class())}
    return {"type": "object", "properties": properties, "additionalProperties": False, "x-group": metadata["group"]}


def _with_short_forms(schema: dict[str, Any], default: Any, presets: Mapping[str, Any]) -> dict[str, Any]:
    """The object's schema, with a preset's name and the fields of its list's items as further properties."""
    ((name, item_class),) = (
        (name, item) for name, (_, hint) in fields_of(type(default)).items() if (item := item_class_of(hint))
    )
    plain = to_json(item_class())
    items = {key: [_sparse(to_json(item), plain) for item in getattr(preset, name)] for key, preset in presets.items()}
    preset = {"description": f"Begin from these {name}.", "type": "string", "enum": list(presets), "x-short": True}
    own = [to_json(item) for item in getattr(default, name)]
    for_all = {
        key: {**(field if "x-group" in field else _shared(field, [item[key] for item in own])), "x-short": True}
        for key, field in schema["properties"][name]["items"]["properties"].items()
        if "properties" in field
    }
    properties = {"preset": preset, **schema["properties"], **for_all}
    return {**schema, "properties": properties, "x-list": name, "x-presets": items}


def _shared(schema: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An object's schema whose defaults are what all `items` have, and missing where they differ."""
    properties: dict[str, Any] = {}
    for name, field in schema["properties"].items():
        values = [item[name] for item in items]
        rest = {key: value for key, value in field.items() if key != "default"}
        properties[name] = {"default": values[0], **rest} if values.count(values[0]) == len(values) else rest
    return {**schema, "properties": properties}


def _sparse(value: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """What of `value` differs from `plain`."""
    return {
        name: _sparse(item, plain[name]) if isinstance(item, Mapping) else item
        for name, item in value.items()
        if item != plain[name]
    }


def _value_schema(hint: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    kind, nullable = kind_of(hint)
    bounds: dict[str, Any] = {BOUNDS[name][0]: metadata[name] for name in BOUNDS if name in metadata}
    if typing.get_origin(kind) is tuple:
        length = len(typing.get_args(kind))
        return {"type": "array", "items": {"type": "number", **bounds}, "minItems": length, "maxItems": length}
    choices, pattern = choices_of(kind, metadata), metadata.get("pattern")
    # $ alone would let a line end pass.
    fitting = {"pattern": rf"^(?:{pattern.regex})(?!\n)$", "x-words": pattern.words} if pattern else {}
    if choices and pattern:
        return {"type": "string", "anyOf": [{"enum": list(choices)}, fitting]}
    if choices:
        return {"type": "string", "enum": list(choices)}
    name = JSON_TYPES[kind]
    return {"type": [name, "null"] if nullable else name, **bounds, **fitting}
