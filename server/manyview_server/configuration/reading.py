"""Read settings from JSON values, and check settings that were made by hand, by the schema of their class."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from manyview_server.configuration import resolution
from manyview_server.configuration.json_schema import json_schema
from manyview_server.configuration.settings_class import Settings, build, fields_of, item_class_of, to_json
from manyview_server.configuration.violations import Violation


def resolve(settings_class: type[Settings], given: Mapping[str, Any]) -> Settings:
    """Return the settings that `given` describes: what differs from the defaults, with or without short forms.

    Raises:
        InvalidConfiguration: with every violation.
    """
    return build(settings_class, resolution.resolve(json_schema(settings_class), given))


def read(settings_class: type[Settings], stored: Mapping[str, Any]) -> Settings:
    """Return the settings of a configuration that this release or an older one resolved.

    Settings of plugins that are not installed stay JSON values: such a plugin may not be needed any more.

    Raises:
        InvalidConfiguration: with every violation.
    """
    schema = json_schema(settings_class)
    return build(settings_class, resolution.resolve(schema, {}, stored, keep_missing_plugins=True))


def check(settings: object) -> list[Violation]:
    """Return the violations in settings, which somebody may have made without `resolve` or `read`."""
    return [*_misplaced(settings)] or resolution.check(json_schema(type(settings)), to_json(settings))


def _misplaced(settings: object, path: str = "") -> Iterator[Violation]:
    """Yield nested settings that are not of the class that their field wants: a dict, or another class."""
    for name, (field, hint) in fields_of(type(settings)).items():
        value, place = getattr(settings, name), f"{path}{name}"
        if "classes" in field.metadata:
            classes = field.metadata["classes"]()
            nested = [(f"{place}.{key}", item, classes[key]) for key, item in value.items() if key in classes]
        elif dataclasses.is_dataclass(hint):
            nested = [(place, value, hint)]
        else:
            item_class = item_class_of(hint)
            nested = [(f"{place}[{i}]", item, item_class) for i, item in enumerate(value)] if item_class else []
        for where, item, wanted in nested:
            if isinstance(item, wanted):
                yield from _misplaced(item, f"{where}.")
            else:
                yield Violation.of(where, item, f"must be of type {wanted.__name__}")
