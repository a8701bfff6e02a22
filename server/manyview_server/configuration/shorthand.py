"""Short forms of a configuration, and how they are expanded.

An object with ``x-list`` has a list of similar items. The list can be given whole. It can start from a preset, by the
preset's name. It can be changed in all items at once, by a field of the items beside the list, or in one item, by an
object with the item's index in place of the list:

    {"preset": "byol", "blur": {"probability": 0}, "pipelines": {"1": {"solarize": {"probability": 0.1}}}}

A number of rows with ``x-width`` can be given as [rows, width], where the width must be the value of that field.

A complete configuration has no short forms: it lists every item with all of its fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeGuard

from manyview_server.configuration.field_check import check_fields
from manyview_server.configuration.schema import Json, Schema
from manyview_server.configuration.violations import Violation


def merged(base: Mapping[str, Json], changes: Mapping[str, Json]) -> dict[str, Json]:
    """Return `base` with `changes`; nested objects are merged in the same way, lists are replaced."""
    result = dict(base)
    for name, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
        result[name] = merged(result[name], value) if nested else value
    return result


def expand(
    schema: Schema, base: Mapping[str, Json], given: Mapping[str, Json], found: list[Violation], path: str = ""
) -> dict[str, Json]:
    """Return `given` without short forms. Append what is wrong with the short forms themselves to `found`.

    Args:
        base: the complete configuration over which `given` goes.
    """
    result: dict[str, Json] = {}
    for name, value in given.items():
        field = schema["properties"].get(name, Schema())
        if "x-width" in field and is_rows_and_width(value):
            result[name] = value[0]
        elif not isinstance(value, Mapping) or "properties" not in field:
            result[name] = value
        elif "x-list" in field:
            result[name] = _with_whole_list(field, base[name], value, found, f"{path}{name}.")
        else:
            result[name] = expand(field, base.get(name) or {}, value, found, f"{path}{name}.")
    return result


def is_rows_and_width(value: Json) -> TypeGuard[Sequence[Json]]:
    """Is a value the short form of a field with ``x-width``?"""
    return isinstance(value, list | tuple) and len(value) == 2


def for_all_items(schema: Schema, given: Mapping[str, Json]) -> dict[str, Json]:
    """Return the fields of `given` that change all items of the list at once."""
    fields = schema["properties"]
    return {name: value for name, value in given.items() if name != "preset" and is_short(fields.get(name, Schema()))}


def is_short(field: Schema) -> bool:
    """Is a field a short form?"""
    return field.get("x-short", False)


def _with_whole_list(
    schema: Schema, base: Mapping[str, Json], given: Mapping[str, Json], found: list[Violation], path: str
) -> dict[str, Json]:
    name = schema["x-list"]
    items = _start(schema, base[name], given, found, path)
    if isinstance(given.get(name), Mapping):
        items = _changed_by_index(items, given[name], found, f"{path}{name}")
    elif name in given:
        items = given[name]
    changes = {}
    for key, value in for_all_items(schema, given).items():
        wrong = check_fields(schema["properties"][name]["items"], {key: value}, path)
        found += wrong
        if not wrong:
            changes[key] = value
    if isinstance(items, list):
        items = [merged(item, changes) if isinstance(item, Mapping) else item for item in items]
    rest = {key: value for key, value in given.items() if not is_short(schema["properties"].get(key, Schema()))}
    return {**rest, name: items}


def _start(
    schema: Schema, base: list[Json], given: Mapping[str, Json], found: list[Violation], path: str
) -> list[Json]:
    """Return the items of the preset that is given, or else those of the base."""
    if "preset" not in given:
        return base
    preset, name = given["preset"], schema["x-list"]
    if wrong := check_fields(schema, {"preset": preset}, path):
        found += wrong
        return base
    if isinstance(given.get(name), list):
        found.append(Violation.of(f"{path}preset", preset, f"has no effect because {path}{name} is given"))
    return schema["x-presets"][preset]


def _changed_by_index(items: list[Json], changes: Mapping[str, Json], found: list[Violation], path: str) -> list[Json]:
    result = list(items)
    for index, value in changes.items():
        if not index.isdecimal() or int(index) >= len(items):
            allowed = f"must be an index from 0 to {len(items) - 1}, or {path} must be a list"
            found.append(Violation.of(f"{path}.{index}", value, allowed))
        elif isinstance(value, Mapping):
            result[int(index)] = merged(items[int(index)], value)
        else:
            found.append(Violation.of(f"{path}.{index}", value, "must be an object"))
    return result
