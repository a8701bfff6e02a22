"""What is wrong with a configuration, in sentences: every violation of a JSON Schema, with what would be right."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jsonschema

from manyview_server.configuration import shorthand
from manyview_server.errors import Violation

Json = Any

NOUNS = {
    "integer": "an integer",
    "number": "a number",
    "string": "a string",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}
# Violations of these are told by describing what is allowed; of any other keyword, in jsonschema's own words.
DESCRIBED = {"type", "enum", "anyOf", "pattern", "const", "minItems", "maxItems", *BOUNDS}
SHOWN_CHARS = 80
# More than an answer can carry. The search for further violations stops there: each costs up to half a millisecond.
MAX_VIOLATIONS = 100
# A longer name is not a typing error, and the search for a similar name would take long.
MAX_NEAR_CHARS = 64


def refused(schema: Mapping[str, Json], value: Json) -> list[Violation]:
    """The violations of `schema` in `value`, one for each field, in the order of their dotted paths.

    At most `MAX_VIOLATIONS` are looked for.
    """
    found: dict[str, Violation] = {}
    errors = jsonschema.Draft202012Validator(schema).iter_errors(value)
    for violation in (violation for error in errors for violation in _tell(error, schema)):
        found.setdefault(violation.field, violation)
        if len(found) == MAX_VIOLATIONS:
            break
    return [found[field] for field in sorted(found)]


def not_finite(value: Json, path: str = "") -> list[Violation]:
    """The numbers in `value` that are NaN or infinite: they pass every bound of a schema."""
    if isinstance(value, Mapping):
        return [v for name, item in value.items() for v in not_finite(item, _join(path, name))]
    if isinstance(value, list | tuple):
        return [v for i, item in enumerate(value) for v in not_finite(item, f"{path}[{i}]")]
    if isinstance(value, float) and not math.isfinite(value):
        return [Violation(field=path, description=f"must be a finite number (got {value})")]
    return []


def not_installed(schema: Mapping[str, Json], value: Json, path: str = "") -> list[Violation]:
    """The plugins that a configuration in full, one of an earlier day, names and the server no longer has."""
    if isinstance(value, list | tuple):
        items = schema.get("items", {})
        return [v for i, item in enumerate(value) for v in not_installed(items, item, f"{path}[{i}]")]
    if not isinstance(value, Mapping):
        return []
    fields = schema.get("properties", {})
    gone = [name for name in value if name not in fields] if "x-group" in schema else []
    found = [_unknown(_join(path, name), name, schema, schema) for name in gone]
    for name in fields.keys() & value.keys():
        found += not_installed(fields[name], value[name], _join(path, name))
    return found


def unknown(field: str, name: str, known: Sequence[str], elsewhere: Iterable[str] = ()) -> Violation:
    """`name` is none of the `known`: says the nearest one, or the dotted path of a field so called `elsewhere`."""
    near = [path for path in elsewhere if path.rpartition(".")[2] == name]
    near = _near(name, known) or near
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return Violation(field=field, description=f"{shown(name)} is not known; {hint}")


def types_of(schema: Mapping[str, Json]) -> tuple[str, ...]:
    """The JSON types that a schema allows."""
    types = schema.get("type", ())
    return (types,) if isinstance(types, str) else tuple(types)


def allowed(schema: Mapping[str, Json]) -> str:
    """What a schema allows, in words: "an integer, at least 2 and at most 64"."""
    if "const" in schema:
        return shown(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(shown(choice) for choice in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(allowed(part) for part in schema["anyOf"])
    if "x-words" in schema:
        return f"{schema['x-words']}{', or null' if 'null' in types_of(schema) else ''}"
    bounds = " and ".join(f"{words} {schema[key]:,}" for key, words in BOUNDS.items() if key in schema)
    if types_of(schema) == ("array",):
        return _allowed_list(schema)
    nouns = [NOUNS.get(name, name) for name in types_of(schema)]
    if "null" in types_of(schema):
        nouns.remove("null")
        return f"{' or '.join(nouns)}{', ' if bounds else ''}{bounds}, or null"
    return f"{' or '.join(nouns)}{', ' if bounds else ''}{bounds}"


def _allowed_list(schema: Mapping[str, Json]) -> str:
    low, high = schema.get("minItems"), schema.get("maxItems")
    if low is not None and low == high:
        count = f" of exactly {low}"
    else:
        ends = [f"{words} {n}" for words, n in (("at least", low), ("at most", high)) if n is not None]
        count = f" of {' and '.join(ends)}" if ends else ""
    return f"a list{count}, each {allowed(schema['items'])}" if "items" in schema else f"a list{count}"


def _tell(error: jsonschema.ValidationError, whole: Mapping[str, Json]) -> Iterator[Violation]:
    path = ""
    for part in error.absolute_path:
        path = f"{path}[{part}]" if isinstance(part, int) else _join(path, part)
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        for name in sorted(error.instance):
            if name not in known:
                yield _unknown(_join(path, name), name, error.schema, whole)
    elif error.validator == "required":
        for name in error.validator_value:
            if name not in error.instance:
                yield Violation(field=_join(path, name), description="is required")
    elif error.validator in DESCRIBED:
        text = f"must be {allowed(error.schema)} (got {shown(error.instance)}){_nearest(error)}"
        yield Violation(field=path, description=text)
    else:
        yield Violation(field=path, description=error.message)


def _unknown(field: str, name: str, schema: Mapping[str, Json], whole: Mapping[str, Json]) -> Violation:
    known = list(schema.get("properties", {}))
    if "x-group" in schema:
        text = shorthand.not_installed(name, known, schema["x-group"])
        return Violation(field=field, description=f"{shown(name)} {text}")
    return unknown(field, name, known, _fields(whole))


def _nearest(error: jsonschema.ValidationError) -> str:
    if not isinstance(error.instance, str):
        return ""
    choices = [choice for part in error.schema.get("anyOf", [error.schema]) for choice in part.get("enum", ())]
    near = _near(error.instance, [choice for choice in choices if isinstance(choice, str)])
    return f"; did you mean {near[0]!r}?" if near else ""


def _near(name: str, known: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(name, known, n=1) if len(name) <= MAX_NEAR_CHARS else []


def _fields(schema: Mapping[str, Json], path: str = "") -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        yield _join(path, name)
        yield from _fields(field, _join(path, name))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def shown(value: Json) -> str:
    """A value as the user wrote it, shortened."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"
