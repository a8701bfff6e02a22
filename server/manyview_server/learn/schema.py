"""Settings fields that know their description and bounds: one source for checks, JSON and JSON Schema.

A settings class is a frozen, keyword-only dataclass whose fields are made by `setting`. A field holds a bool, int,
float or str, a Literal, a tuple of floats of fixed length, an optional one of these, or another settings class.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

BOUNDS: Mapping[str, tuple[str, str]] = {
    "minimum": ("minimum", "at least"),
    "exclusive_minimum": ("exclusiveMinimum", "above"),
    "maximum": ("maximum", "at most"),
    "exclusive_maximum": ("exclusiveMaximum", "below"),
}
"""Bound in a field's metadata -> (JSON Schema keyword, words)."""

JSON_TYPES: Mapping[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}


@dataclass(frozen=True)
class Violation:
    """One refused value: dotted field name, the value as given, and what is wanted instead."""

    field: str
    value: object
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message} (got {self.value!r})"


class SettingsError(ValueError):
    """Refused settings; `violations` holds every one of them."""

    def __init__(self, violations: Iterable[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(map(str, self.violations)))


def setting(
    default: Any,
    description: str,
    *,
    minimum: float | None = None,
    exclusive_minimum: float | None = None,
    maximum: float | None = None,
    exclusive_maximum: float | None = None,
    choices: Sequence[str] | None = None,
    needs: Sequence[str] = (),
    fixed: bool = False,
) -> Any:
    """A dataclass field with a default, one sentence of description, and bounds (of each item, for a tuple).

    `needs` names sibling fields that must not be zero for this one to take effect. `fixed`: a checkpoint's tensors or
    numbers depend on it, so that a run which goes on from one cannot change it.
    """
    bounds = {
        "minimum": minimum,
        "exclusive_minimum": exclusive_minimum,
        "maximum": maximum,
        "exclusive_maximum": exclusive_maximum,
        "choices": None if choices is None else tuple(choices),
    }
    metadata: dict[str, Any] = {name: bound for name, bound in bounds.items() if bound is not None}
    metadata |= {"description": description, "needs": tuple(needs), "fixed": fixed}
    return dataclasses.field(default=default, metadata=metadata)


def changed(settings_class: type, name: str, default: Any, **metadata: Any) -> Any:
    """The field `name` of a parent class again, with another default and perhaps another bound or description."""
    parent = settings_class.__dataclass_fields__[name]  # type: ignore[attr-defined]
    return dataclasses.field(default=default, metadata={**parent.metadata, **metadata})


def merge(settings: object, overrides: Mapping[str, object], found: list[Violation], path: str = "") -> dict[str, Any]:
    """Keyword arguments for ``dataclasses.replace(settings, ...)``; what is refused is appended to `found` instead."""
    fields = _fields(type(settings))
    accepted: dict[str, Any] = {}
    for name, value in overrides.items():
        where = f"{path}{name}"
        if name not in fields:
            found.append(Violation(where, value, _unknown(name, fields)))
            continue
        field, hint = fields[name]
        if not dataclasses.is_dataclass(hint):
            accepted[name], message = _read(value, hint, field.metadata)
            if message:
                del accepted[name]
                found.append(Violation(where, value, message))
        elif isinstance(value, Mapping):
            inner = getattr(settings, name)
            accepted[name] = dataclasses.replace(inner, **merge(inner, value, found, f"{where}."))
        else:
            found.append(Violation(where, value, "must be an object"))
    return accepted


def check(settings: object, path: str = "") -> list[Violation]:
    """Every field of `settings`, nested ones included, that is outside its bounds or of the wrong type."""
    found: list[Violation] = []
    for name, (field, hint) in _fields(type(settings)).items():
        value = getattr(settings, name)
        if dataclasses.is_dataclass(hint):
            found += check(value, f"{path}{name}.")
        elif message := _read(value, hint, field.metadata)[1]:
            found.append(Violation(f"{path}{name}", value, message))
    return found


def without_effect(settings: object, defaults: object, path: str = "") -> list[Violation]:
    """Every field that differs from `defaults` although a field that it needs is zero."""
    found: list[Violation] = []
    for name, (field, hint) in _fields(type(settings)).items():
        value, default = getattr(settings, name), getattr(defaults, name)
        if dataclasses.is_dataclass(hint):
            found += without_effect(value, default, f"{path}{name}.")
            continue
        for other in field.metadata["needs"]:
            if value != default and getattr(settings, other) == 0:
                found.append(Violation(f"{path}{name}", value, f"has no effect while {path}{other} is 0"))
    return found


def to_json(settings: object) -> dict[str, Any]:
    """`settings` as JSON values; merging them over the defaults gives exactly `settings` again."""
    result: dict[str, Any] = {}
    for name in _fields(type(settings)):
        value = getattr(settings, name)
        if dataclasses.is_dataclass(value):
            value = to_json(value)
        result[name] = list(value) if isinstance(value, tuple) else value
    return result


def json_schema(settings_class: type) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of `settings_class`: types, defaults, bounds, descriptions; nothing else is allowed.

    It refuses what is wrong with any one field. Rules between fields are beyond it.
    """
    schema = _object_schema(settings_class())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": settings_class.__name__, **schema}


def _object_schema(settings: object) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, (field, hint) in _fields(type(settings)).items():
        default = getattr(settings, name)
        if dataclasses.is_dataclass(hint):
            properties[name] = {"description": field.metadata["description"], **_object_schema(default)}
        else:
            properties[name] = {
                "description": field.metadata["description"],
                "default": list(default) if isinstance(default, tuple) else default,
                **({"x-fixed": True} if field.metadata["fixed"] else {}),
                **_value_schema(hint, field.metadata),
            }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _value_schema(hint: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    kind, nullable = _kind(hint)
    bounds: dict[str, Any] = {BOUNDS[name][0]: metadata[name] for name in BOUNDS if name in metadata}
    if typing.get_origin(kind) is tuple:
        length = len(typing.get_args(kind))
        return {"type": "array", "items": {"type": "number", **bounds}, "minItems": length, "maxItems": length}
    if choices := _choices(kind, metadata):
        return {"type": "string", "enum": list(choices)}
    name = JSON_TYPES[kind]
    return {"type": [name, "null"] if nullable else name, **bounds}


def _read(value: object, hint: Any, metadata: Mapping[str, Any]) -> tuple[Any, str | None]:
    """The value as the field's type, or what is wrong with it."""
    kind, nullable = _kind(hint)
    if value is None:
        return None, None if nullable else "must not be null"
    if typing.get_origin(kind) is tuple:
        length = len(typing.get_args(kind))
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != length:
            return value, f"must be a list of {length} numbers"
        items = [_read_number(item, float, metadata) for item in value]
        return tuple(item for item, _ in items), next((message for _, message in items if message), None)
    if choices := _choices(kind, metadata):
        return value, None if value in choices else f"must be one of {', '.join(map(repr, choices))}"
    if kind in (int, float):
        return _read_number(value, kind, metadata)
    return value, None if isinstance(value, kind) else f"must be a {JSON_TYPES[kind]}"


def _read_number(value: object, kind: type[int] | type[float], metadata: Mapping[str, Any]) -> tuple[Any, str | None]:
    finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    if isinstance(value, bool) or not isinstance(value, int | float) or not finite:
        return value, "must be an integer" if kind is int else "must be a finite number"
    if kind is int and value != int(value):
        return value, "must be an integer"
    inside = {
        "minimum": lambda bound: value >= bound,
        "exclusive_minimum": lambda bound: value > bound,
        "maximum": lambda bound: value <= bound,
        "exclusive_maximum": lambda bound: value < bound,
    }
    present = [name for name in BOUNDS if name in metadata]
    if all(inside[name](metadata[name]) for name in present):
        return kind(value), None
    return value, "must be " + " and ".join(f"{BOUNDS[name][1]} {metadata[name]:g}" for name in present)


def _fields(settings_class: type) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(settings_class)
    return {field.name: (field, hints[field.name]) for field in dataclasses.fields(settings_class)}


def _kind(hint: Any) -> tuple[Any, bool]:
    """A field's type without None, and whether None was part of it."""
    if not isinstance(hint, types.UnionType):
        return hint, False
    (kind,) = (part for part in hint.__args__ if part is not types.NoneType)
    return kind, True


def _choices(kind: Any, metadata: Mapping[str, Any]) -> tuple[str, ...]:
    if typing.get_origin(kind) is Literal:
        return typing.get_args(kind)
    choices: tuple[str, ...] = metadata.get("choices", ())
    return choices


def _unknown(name: str, known: Iterable[str]) -> str:
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"is not known; did you mean {nearest[0]!r}?" if nearest else f"is not known; known: {', '.join(known)}"
