"""Violations: each says in a sentence what is wrong with a field, and what is allowed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from manyview_server.configuration.schema import Schema, types_of

MAX_SHOWN_CHARS = 80
NOUNS = {
    "integer": "an integer",
    "number": "a number",
    "string": "a string",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
}
KNOWN = "known: "
# A longer name is not a typing error, and the search for a similar name would take long.
MAX_SIMILAR_CHARS = 64
MIN_SIMILARITY = 0.65
MIN_PREFIX_CHARS = 4
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One wrong field: its dotted path, and a sentence that says what is allowed and what was given. Programs branch on
    `reason`, if there is one, in UPPER_SNAKE case."""

    field: str
    description: str
    reason: str = ""

    @classmethod
    def of(cls, field: str, value: object, text: str) -> Violation:
        """Describe a wrong value: `text` says what is wrong with it."""
        return cls(field=field, description=f"{text} (got {shown(value)})")

    def __str__(self) -> str:
        return f"{self.field}: {self.description}"


class InvalidConfiguration(ValueError):
    """A configuration or settings that are refused; `violations` holds all reasons, sorted by field."""

    def __init__(self, violations: Iterable[Violation]) -> None:
        by_field: dict[str, Violation] = {}
        for violation in violations:
            by_field.setdefault(violation.field, violation)
        self.violations = tuple(by_field[field] for field in sorted(by_field))
        super().__init__("; ".join(map(str, self.violations)))


def shown(value: Any) -> str:
    """Return a value as the user wrote it, shortened."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=repr)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def allowed(schema: Schema) -> str:
    """Say what a schema allows: "an integer, at least 2 and at most 64"."""
    if "enum" in schema:
        return f"one of {', '.join(map(shown, schema['enum']))}"
    if "anyOf" in schema:
        return " or ".join(map(allowed, schema["anyOf"]))
    types = types_of(schema)
    or_null = ", or null" if "null" in types else ""
    if "x-words" in schema:
        return schema["x-words"] + or_null
    if "array" in types:
        return _allowed_list(schema)
    nouns = " or ".join(NOUNS[name] for name in types if name != "null")
    bounds = " and ".join(f"{words} {schema[key]:,}" for key, words in BOUNDS.items() if key in schema)  # type: ignore[literal-required]
    return f"{nouns}{', ' if bounds else ''}{bounds}{or_null}"


def _allowed_list(schema: Schema) -> str:
    low, high = schema.get("minItems"), schema.get("maxItems")
    if low is not None and low == high:
        count = f" of exactly {low}"
    else:
        ends = [f"{words} {n}" for words, n in (("at least", low), ("at most", high)) if n is not None]
        count = f" of {' and '.join(ends)}" if ends else ""
    return f"a list{count}, each {allowed(schema['items'])}"


def wrong(schema: Schema, field: str, value: Any) -> Violation:
    """Describe a value that its schema does not allow."""
    choices = [name for part in schema.get("anyOf", [schema]) for name in part.get("enum", ())]
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    violation = Violation.of(field, value, f"must be {allowed(schema)}")
    return Violation(field=field, description=violation.description + hint)


def similar(name: str, known: Iterable[str]) -> str | None:
    """Return a known name that `name` abbreviates, as lr and warmup do, or else the most similar one, or None.

    Upper and lower case are alike.
    """
    if not name or len(name) > MAX_SIMILAR_CHARS:
        return None
    by_lower = {each.lower(): each for each in known}
    near = [each for each in by_lower if _abbreviates(name.lower(), each)]
    near += difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=MIN_SIMILARITY)
    return by_lower[near[0]] if near else None


def _abbreviates(short: str, name: str) -> bool:
    initials = "".join(word[:1] for word in name.split("_"))
    return short == initials if len(short) < MIN_PREFIX_CHARS else name.startswith(short)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'NAME'?" for the end of a message, or "" if no known name is similar."""
    near = similar(name, known)
    return f"; did you mean {near!r}?" if near else ""


def unknown(field: str, name: str, known: Collection[str]) -> Violation:
    """Describe a name that is not `known`, with the most similar one."""
    near = similar(name, known)
    hint = f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"
    return Violation(field=field, description=f"{shown(name)} is not known; {hint}")


def unknown_field(path: str, name: str, schema: Schema, root: Schema, *, list_known: bool = True) -> Violation:
    """Describe a field that the object `schema` does not have, perhaps because it is elsewhere in `root`.

    Args:
        path: of the object, with a dot behind it.
        list_known: list the known names if none is similar. One list is enough for all unknown fields of an object.
    """
    known = schema["properties"]
    what, near = "is not known", _field_like(path, name, schema, root)
    if "x-group" in schema:
        what, near = f"is not an installed plugin (entry points {schema['x-group']!r})", similar(name, known)
    if near:
        hint = f"; did you mean {near!r}?"
    elif not known:
        hint = "; none is installed"
    else:
        hint = f"; {KNOWN}{', '.join(known)}" if list_known else ""
    return Violation(field=path + name, description=f"{shown(name)} {what}{hint}")


def _field_like(path: str, name: str, schema: Schema, root: Schema) -> str | None:
    """Return the whole path of a field of the same name elsewhere, or else of the most similar one, here first."""
    elsewhere: dict[str, str] = {}
    for other in _paths(root):
        elsewhere.setdefault(other.rpartition(".")[2], other)
    if name in elsewhere:
        return elsewhere[name]
    if near := similar(name, schema["properties"]):
        return path + near
    near = similar(name, elsewhere)
    return elsewhere[near] if near else None


def _paths(schema: Schema, path: str = "") -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        yield path + name
        yield from _paths(field, f"{path}{name}.")
