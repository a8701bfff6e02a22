"""Settings fields that know their description and bounds: one source for checks, JSON and JSON Schema.

A settings class is a frozen, keyword-only dataclass whose fields are made by `setting`. A field holds a bool, int,
float or str, a Literal, a tuple of floats of fixed length, an optional one of these, another settings class, or a tuple
of any number of another settings class.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from manyview_server.learn import short_forms

Settings = TypeVar("Settings")

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
    only: Mapping[str, Sequence[str]] | None = None,
    at_most: str | None = None,
    at_least: str | None = None,
    presets: Mapping[str, Any] | None = None,
    fixed: bool = False,
) -> Any:
    """A dataclass field with a default, one sentence of description, and bounds (of each item, for a tuple).

    `needs` names sibling fields that must not be zero for this one to take effect, `only` a sibling and those of its
    choices with which it does, `at_most` and `at_least` one that bounds it. `presets`, of settings that hold a tuple of
    settings: values to begin from, by name (see `short_forms`).
    `fixed`: a checkpoint's tensors or numbers depend on it, so that a run which goes on from one cannot change it.
    """
    bounds = {
        "minimum": minimum,
        "exclusive_minimum": exclusive_minimum,
        "maximum": maximum,
        "exclusive_maximum": exclusive_maximum,
        "choices": None if choices is None else tuple(choices),
    }
    metadata: dict[str, Any] = {name: bound for name, bound in bounds.items() if bound is not None}
    metadata |= {"description": description, "needs": tuple(needs), "fixed": fixed, "presets": presets}
    metadata |= {"only": {name: list(choices) for name, choices in (only or {}).items()}}
    metadata |= {"at_most": at_most, "at_least": at_least}
    return dataclasses.field(default=default, metadata=metadata)


def changed(settings_class: type, name: str, default: Any, **metadata: Any) -> Any:
    """The field `name` of a parent class again, with another default and perhaps another bound or description."""
    parent = settings_class.__dataclass_fields__[name]  # type: ignore[attr-defined]
    return dataclasses.field(default=default, metadata={**parent.metadata, **metadata})


def resolve(defaults: Settings, overrides: Mapping[str, object]) -> Settings:
    """`defaults` with `overrides`, nested as the settings are, JSON values, short forms among them.

    Raises:
        SettingsError: with every violation: unknown names (and the nearest known one), wrong types, bounds, rules
            between fields, and fields that would have no effect.
    """
    found: list[Violation] = []
    schema = json_schema(type(defaults))

    def refuse(field: str, value: object, message: str) -> None:
        found.append(Violation(field, value, message))

    def is_right(path: str, fields: Mapping[str, object]) -> bool:
        before = len(found)
        merge(_item_of(defaults, path), fields, found, path)
        return len(found) == before

    in_full = short_forms.spelled_out(schema, to_json(defaults), overrides, refuse, is_right)
    settings = _replaced(defaults, in_full, found)
    if settings is not None:
        refused = {violation.field for violation in found}
        rules = short_forms.broken_rules(schema, overrides, to_json(settings))
        found += [Violation(*broken) for broken in rules if broken[0] not in refused]
    if settings is None or found:
        raise SettingsError(found)
    return settings


def read(defaults: Settings, values: Mapping[str, object]) -> Settings:
    """The settings of `values`, a configuration in full that was resolved before.

    Raises:
        SettingsError: with every violation of a single field, and what the settings' own check finds.
    """
    found: list[Violation] = []
    settings = _replaced(defaults, values, found)
    if settings is None or found:
        raise SettingsError(found)
    return settings


def _replaced(defaults: Settings, values: Mapping[str, object], found: list[Violation]) -> Settings | None:
    accepted = merge(defaults, values, found)
    try:
        return dataclasses.replace(defaults, **accepted)  # type: ignore[type-var]
    except SettingsError as error:
        refused = {violation.field for violation in found}
        found += [violation for violation in error.violations if violation.field not in refused]
        return None


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
        if item_class := _item_class(hint):
            if items := _read_items(item_class, value, found, where):
                accepted[name] = items
        elif not dataclasses.is_dataclass(hint):
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


def _read_items(item_class: Any, value: object, found: list[Violation], path: str) -> tuple[Any, ...]:
    """The items of a list of settings, what they do not say being the class's defaults; none where they are refused."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) == 0:
        found.append(Violation(path, value, "must be a list of objects, at least one"))
        return ()
    before, items = len(found), []
    for index, item in enumerate(value):
        if isinstance(item, Mapping):
            items.append(item_class(**merge(item_class(), item, found, f"{path}[{index}].")))
        else:
            found.append(Violation(f"{path}[{index}]", item, "must be an object"))
    return tuple(items) if len(found) == before else ()


def _item_of(settings: object, path: str) -> object:
    """An item, by default, of the list in the object at a dotted `path`."""
    for name in path.rstrip(".").split("."):
        settings = getattr(settings, name)
    (item_class,) = (item for _, hint in _fields(type(settings)).values() if (item := _item_class(hint)))
    return item_class()


def check(settings: object, path: str = "") -> list[Violation]:
    """Every field of `settings`, nested ones included, that is outside its bounds or of the wrong type."""
    found: list[Violation] = []
    for name, (field, hint) in _fields(type(settings)).items():
        value = getattr(settings, name)
        if dataclasses.is_dataclass(hint):
            found += check(value, f"{path}{name}.")
        elif _item_class(hint):
            for index, item in enumerate(value):
                found += check(item, f"{path}{name}[{index}].")
        elif message := _read(value, hint, field.metadata)[1]:
            found.append(Violation(f"{path}{name}", value, message))
    return found


def to_json(settings: object) -> dict[str, Any]:
    """`settings` as JSON values; `read` gives exactly `settings` again."""
    return {name: _to_json(getattr(settings, name)) for name in _fields(type(settings))}


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    return [_to_json(item) for item in value] if isinstance(value, tuple) else value


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
        for name, (field, hint) in _fields(type(settings)).items()
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _field_schema(default: Any, hint: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    if dataclasses.is_dataclass(hint):
        nested = _object_schema(default)
        return nested if metadata["presets"] is None else _with_short_forms(nested, default, metadata["presets"])
    rules = {"x-needs": list(metadata["needs"]), "x-only": metadata["only"]}
    rules |= {"x-at-most": metadata["at_most"], "x-at-least": metadata["at_least"]}
    kept = {"x-fixed": True} if metadata["fixed"] else {}
    kept |= {key: rule for key, rule in rules.items() if rule}
    if item_class := _item_class(hint):
        items = _object_schema(item_class())
        return {"default": _to_json(default), **kept, "type": "array", "items": items, "minItems": 1}
    return {"default": _to_json(default), **kept, **_value_schema(hint, metadata)}


def _with_short_forms(schema: dict[str, Any], default: Any, presets: Mapping[str, Any]) -> dict[str, Any]:
    """The object's schema, with a preset's name and the fields of its list's items as further properties."""
    ((name, item_class),) = (
        (name, item) for name, (_, hint) in _fields(type(default)).items() if (item := _item_class(hint))
    )
    plain = to_json(item_class())
    items = {key: [_sparse(to_json(item), plain) for item in getattr(preset, name)] for key, preset in presets.items()}
    preset = {"description": f"Begin from these {name}.", "type": "string", "enum": list(presets), "x-short": True}
    own = [to_json(item) for item in getattr(default, name)]
    for_all = {
        key: {**_shared(field, [item[key] for item in own]), "x-short": True}
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


def _item_class(hint: Any) -> Any:
    """The settings class of a tuple of any number of them; None for every other field."""
    arguments = typing.get_args(hint)
    is_list = typing.get_origin(hint) is tuple and arguments[-1] is Ellipsis
    return arguments[0] if is_list else None


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
