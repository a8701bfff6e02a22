"""Resolve a configuration: expand its short forms, check it, and fill in what it does not say.

The front does this when a job is created, and the trainer when the job starts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

from manyview_server.configuration import cross_field_rules
from manyview_server.configuration.configuration_size import check_size
from manyview_server.configuration.field_check import check_fields
from manyview_server.configuration.schema import Json, Schema, types_of
from manyview_server.configuration.shorthand import expand, is_short, merged
from manyview_server.configuration.sibling_rules import check_siblings
from manyview_server.configuration.violations import InvalidConfiguration, Violation


def resolve(
    schema: Schema,
    given: Mapping[str, Json],
    base: Mapping[str, Json] | None = None,
    *,
    keep_missing_plugins: bool = False,
) -> dict[str, Json]:
    """Return the complete configuration that `given` describes.

    Whole floats become integers where the schema wants integers. The largest configurations that are allowed take
    about ten milliseconds: call it off the event loop.

    Args:
        given: what differs from `base`; nested, with or without short forms.
        base: the configuration of another job, which this release or an older one stored. By default, the defaults;
            they follow sizes that are given.
        keep_missing_plugins: keep settings of plugins that are not installed instead of refusing them.

    Raises:
        InvalidConfiguration: with all violations of single fields, or else with all broken rules between fields.
    """
    stored = _with_older_values(schema, base) if base else {}
    complete: dict[str, Json] = _defaults(schema, stored, given)
    for changes in (stored, given):
        complete = _resolve_over(schema, complete, changes, keep_missing_plugins=keep_missing_plugins)
    if found := check_rules(schema, given, complete):
        raise InvalidConfiguration(found)
    return complete


def check(schema: Schema, complete: Mapping[str, Json]) -> list[Violation]:
    """Return the violations in a complete configuration: those of single fields, or else those of the rules."""
    return check_fields(schema, complete, keep_missing_plugins=True) or check_rules(schema, {}, complete)


def check_rules(schema: Schema, given: Mapping[str, Json], complete: Mapping[str, Json]) -> list[Violation]:
    """Return the broken rules between fields of a configuration whose single fields are right.

    Args:
        given: what somebody asked for. Each of these values must have an effect.
    """
    return [*check_siblings(schema, given, complete), *cross_field_rules.check(schema, complete)]


def check_continuation(schema: Schema, before: Mapping[str, Json], after: Mapping[str, Json]) -> list[Violation]:
    """Return the fields of `after` that must stay as they were in `before`, the configuration of an earlier run.

    A run that continues from a checkpoint cannot change what shapes the checkpoint. A field that an older release did
    not have counts as having had its default, or the value that its schema names for older configurations.
    """
    defaults, stored = complete_with_defaults(schema, {}), _with_older_values(schema, before)
    return list(_changes(schema, _resolve_over(schema, defaults, stored, keep_missing_plugins=True), after))


def complete_with_defaults(schema: Schema, value: Json) -> Json:
    """Return a configuration without short forms with every field that it lacks, of the types that the schema names."""
    if "properties" in schema:
        return _complete_plugins(schema, value) if "x-group" in schema else _complete_object(schema, value)
    if isinstance(value, list | tuple):
        return [complete_with_defaults(schema.get("items", Schema()), item) for item in value]
    types = types_of(schema)
    is_whole = isinstance(value, float) and value.is_integer()
    return int(value) if is_whole and "integer" in types and "number" not in types else value


def _defaults(schema: Schema, *given: Mapping[str, Json]) -> dict[str, Json]:
    """Return the complete configuration over which all of `given` goes; a later one counts more.

    Some defaults are one of two presets, by a number that may be given (``x-default-preset``).
    """
    complete: dict[str, Json] = complete_with_defaults(schema, {})
    for name, field in schema["properties"].items():
        if chosen := field.get("x-default-preset"):
            sibling = chosen["sibling"]
            value = next((values[sibling] for values in reversed(given) if sibling in values), complete[sibling])
            if isinstance(value, int | float) and value < chosen["below"]:  # anything else is refused later
                items = field["x-presets"][chosen["small"]]
                complete[name] = complete_with_defaults(field, {**complete[name], field["x-list"]: items})
    return complete


def _with_older_values(schema: Schema, stored: Mapping[str, Json]) -> dict[str, Json]:
    """Return a stored configuration with the fields that came after it and change what it means."""
    older = {name: field["x-older"] for name, field in schema["properties"].items() if "x-older" in field}
    return {**older, **stored}


def _resolve_over(
    schema: Schema, base: Mapping[str, Json], given: Mapping[str, Json], *, keep_missing_plugins: bool
) -> dict[str, Json]:
    found: list[Violation] = []
    expanded = expand(schema, base, given, found)
    check_size(expanded)
    if found := [*found, *check_fields(schema, expanded, keep_missing_plugins=keep_missing_plugins)]:
        raise InvalidConfiguration(found)
    complete: dict[str, Json] = complete_with_defaults(schema, merged(base, expanded))
    return complete


def _changes(
    schema: Schema, before: Mapping[str, Json], after: Mapping[str, Json], path: str = ""
) -> Iterator[Violation]:
    for name, field in schema["properties"].items():
        if is_short(field):
            continue
        if "properties" in field:
            yield from _changes(field, before[name], after[name], f"{path}{name}.")
        elif field.get("x-fixed") and before[name] != after[name]:
            text = f"must stay {before[name]!r} in a job that continues from a checkpoint"
            yield Violation.of(path + name, after[name], text)


def _complete_object(schema: Schema, given: Mapping[str, Json] | None) -> dict[str, Json]:
    given = given or {}
    return {
        name: complete_with_defaults(field, given[name] if name in given else copy.deepcopy(field.get("default")))
        for name, field in schema["properties"].items()
        if not is_short(field)
    }


def _complete_plugins(schema: Schema, given: Mapping[str, Json] | None) -> dict[str, Json]:
    """Leave out the plugins whose settings are all as by default: then nobody needs the plugin."""
    fields, result = schema["properties"], {}
    for name, value in (given or {}).items():
        if name not in fields:
            result[name] = value
        elif (complete := _complete_object(fields[name], value)) != _complete_object(fields[name], {}):
            result[name] = complete
    return result
