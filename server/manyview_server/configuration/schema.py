"""The description of a configuration: JSON Schema (draft 2020-12) with keywords of our own, which begin with ``x-``.

`json_schema` makes it from a settings class, where torch is. It travels as JSON to the front, which checks
configurations by it, and to users, who may check theirs with any JSON Schema library.
"""

from __future__ import annotations

from typing import Any, TypedDict

Json = Any

Schema = TypedDict(
    "Schema",
    {
        "description": str,
        "default": Json,
        # One JSON type, or ["integer", "null"].
        "type": "str | list[str]",
        "enum": list[str],
        # A text is one of some names or fits a pattern.
        "anyOf": "list[Schema]",
        "pattern": str,
        "minimum": float,
        "exclusiveMinimum": float,
        "maximum": float,
        "exclusiveMaximum": float,
        # A list.
        "items": "Schema",
        "minItems": int,
        "maxItems": int,
        # An object. It may have these fields and no others.
        "properties": "dict[str, Schema]",
        "additionalProperties": bool,
        # The pattern in words: "timm/NAME".
        "x-words": str,
        # The field has no effect while one of these siblings is zero,
        "x-needs": list[str],
        # or while a sibling has none of these values.
        "x-only": dict[str, list[str]],
        # A sibling that bounds the field.
        "x-at-most": str,
        "x-at-least": str,
        # The field counts rows; this sibling says how wide they are. [rows, width] is a short form.
        "x-width": str,
        # A run that continues from a checkpoint cannot change the field.
        "x-fixed": bool,
        # A stored configuration that lacks the field, because it is older, stands for this value.
        "x-older": Json,
        # The object holds settings of plugins of this group of entry points, by the plugin's name.
        "x-group": str,
        # The object has short forms: this is the name of its list,
        "x-list": str,
        # and these are lists to start from, by name. Items lack what is as by default.
        "x-presets": "dict[str, list[Json]]",
        # and one of two of them is the default: "small" while the number "sibling" beside the object is smaller than
        # "below", otherwise "large".
        "x-default-preset": "dict[str, Json]",
        # The default while "small" is the preset, where it differs.
        "x-small-default": Json,
        # The field is a short form, which a complete configuration does not have.
        "x-short": bool,
        # The whole configuration: which views and images its method takes (see `cross_field_rules`).
        "x-takes": "dict[str, Json]",
    },
    total=False,
)


def types_of(schema: Schema) -> tuple[str, ...]:
    """The JSON types that a schema allows."""
    types = schema.get("type", ())
    return (types,) if isinstance(types, str) else tuple(types)
