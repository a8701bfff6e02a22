"""The check of single fields: types, bounds, choices and names, each by its own schema alone."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping

from manyview_server.configuration.schema import Json, Schema, types_of
from manyview_server.configuration.violations import KNOWN, Violation, unknown_field, wrong

# An answer cannot carry more. The search for similar names takes up to half a millisecond for each.
MAX_VIOLATIONS = 100


def check_fields(schema: Schema, value: Json, path: str = "", *, keep_missing_plugins: bool = False) -> list[Violation]:
    """Return the violations of `schema` in an object, at most `MAX_VIOLATIONS`.

    Args:
        path: of the object, with a dot behind it.
        keep_missing_plugins: settings of plugins that are not installed are no violation.
    """
    found = _check(schema, value, path, schema, keep_missing_plugins)
    return list(itertools.islice(found, MAX_VIOLATIONS))


def _check(schema: Schema, value: Json, path: str, root: Schema, keep: bool) -> Iterator[Violation]:
    """The field itself is `path` without the dot behind it."""
    if "properties" in schema:
        if isinstance(value, Mapping):
            yield from _check_object(schema, value, path, root, keep)
        else:
            yield wrong(schema, path[:-1], value)
    elif "items" in schema:
        if not isinstance(value, list | tuple) or not _has_right_length(schema, value):
            yield wrong(schema, path[:-1], value)
        else:
            for index, item in enumerate(value):
                yield from _check(schema["items"], item, f"{path[:-1]}[{index}].", root, keep)
    elif isinstance(value, float) and "number" in types_of(schema) and not math.isfinite(value):
        yield Violation(field=path[:-1], description=f"must be a finite number (got {value})")
    elif not _fits(schema, value):
        yield wrong(schema, path[:-1], value)


def _check_object(
    schema: Schema, value: Mapping[str, Json], path: str, root: Schema, keep: bool
) -> Iterator[Violation]:
    known = schema["properties"]
    if not (keep and "x-group" in schema):
        listed = False
        for name in sorted(value.keys() - known.keys()):
            violation = unknown_field(path, name, schema, root, list_known=not listed)
            listed = listed or KNOWN in violation.description
            yield violation
    for name, field in known.items():
        if name in value:
            yield from _check(field, value[name], f"{path}{name}.", root, keep)


def _has_right_length(schema: Schema, value: list[Json] | tuple[Json, ...]) -> bool:
    return schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))


def _fits(schema: Schema, value: Json) -> bool:
    if "anyOf" in schema:
        return isinstance(value, str) and any(_fits(part, value) for part in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    if value is None:
        return "null" in types_of(schema)
    if isinstance(value, str):
        allows = not schema.get("type") or "string" in types_of(schema)
        return allows and re.search(schema.get("pattern", ""), value) is not None
    if isinstance(value, bool):
        return "boolean" in types_of(schema)
    return isinstance(value, int | float) and _is_number_within(schema, value)


def _is_number_within(schema: Schema, value: float) -> bool:
    is_whole = isinstance(value, int) or value.is_integer()
    return (
        ("number" in types_of(schema) or (is_whole and "integer" in types_of(schema)))
        and schema.get("minimum", value) <= value <= schema.get("maximum", value)
        and not value <= schema.get("exclusiveMinimum", -math.inf)
        and not value >= schema.get("exclusiveMaximum", math.inf)
    )
