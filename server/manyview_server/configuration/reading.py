"""Settings from JSON values and back, with every violation found at once."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from manyview_server.configuration import shorthand
from manyview_server.configuration.description import json_schema
from manyview_server.configuration.field import (
    BOUNDS,
    JSON_TYPES,
    Pattern,
    choices_of,
    fields_of,
    item_class_of,
    kind_of,
)
from manyview_server.configuration.values import to_json
from manyview_server.configuration.violations import SettingsError, Violation

Settings = TypeVar("Settings")


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

    in_full = shorthand.spelled_out(schema, to_json(defaults), overrides, refuse, is_right)
    settings = _replaced(defaults, in_full, found)
    if settings is not None:
        refused = {violation.field for violation in found}
        rules = shorthand.broken_rules(schema, overrides, to_json(settings))
        found += [Violation(*broken) for broken in rules if broken[0] not in refused]
    if settings is None or found:
        raise SettingsError(found)
    return settings


def read(defaults: Settings, values: Mapping[str, object]) -> Settings:
    """Return the settings of `values`, a configuration that this release or an older one has resolved. A name that is
    no longer registered is kept as it is.

    Raises:
        SettingsError: with every violation of a single field, and every violation that the settings' own check finds.
    """
    found: list[Violation] = []
    in_full = shorthand.of_older_release(json_schema(type(defaults)), to_json(defaults), values)
    settings = _replaced(defaults, in_full, found, strict=False)
    if settings is None or found:
        raise SettingsError(found)
    return settings


def _replaced(
    defaults: Settings, values: Mapping[str, object], found: list[Violation], *, strict: bool = True
) -> Settings | None:
    accepted = merge(defaults, values, found, strict=strict)
    try:
        return dataclasses.replace(defaults, **accepted)  # type: ignore[type-var]
    except SettingsError as error:
        refused = {violation.field for violation in found}
        found += [violation for violation in error.violations if violation.field not in refused]
        return None


def merge(
    settings: object, overrides: Mapping[str, object], found: list[Violation], path: str = "", *, strict: bool = True
) -> dict[str, Any]:
    """Keyword arguments for ``dataclasses.replace(settings, ...)``; what is refused is appended to `found` instead.

    Where it is not `strict`, names that are not registered are kept with what they came with.
    """
    fields = fields_of(type(settings))
    accepted: dict[str, Any] = {}
    for name, value in overrides.items():
        where = f"{path}{name}"
        if name not in fields:
            found.append(Violation(where, value, _unknown(name, fields)))
            continue
        field, hint = fields[name]
        if "classes" in field.metadata:
            accepted[name] = _read_by_name(field.metadata, getattr(settings, name), value, found, where, strict)
        elif item_class := item_class_of(hint):
            if items := _read_items(item_class, value, found, where, strict):
                accepted[name] = items
        elif not dataclasses.is_dataclass(hint):
            accepted[name], message = _read(value, hint, field.metadata)
            if message:
                del accepted[name]
                found.append(Violation(where, value, message))
        elif isinstance(value, Mapping):
            inner = getattr(settings, name)
            accepted[name] = dataclasses.replace(inner, **merge(inner, value, found, f"{where}.", strict=strict))
        else:
            found.append(Violation(where, value, "must be an object"))
    return accepted


def _read_items(item_class: Any, value: object, found: list[Violation], path: str, strict: bool) -> tuple[Any, ...]:
    """The items of a list of settings, what they do not say being the class's defaults; none where they are refused."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) == 0:
        found.append(Violation(path, value, "must be a list of objects, at least one"))
        return ()
    before, items = len(found), []
    for index, item in enumerate(value):
        if isinstance(item, Mapping):
            items.append(item_class(**merge(item_class(), item, found, f"{path}[{index}].", strict=strict)))
        else:
            found.append(Violation(f"{path}[{index}]", item, "must be an object"))
    return tuple(items) if len(found) == before else ()


def _read_by_name(
    metadata: Mapping[str, Any],
    before: Mapping[str, Any],
    value: object,
    found: list[Violation],
    path: str,
    strict: bool,
) -> dict[str, Any]:
    """The settings `before` with those in `value`; what is all as by default is left out."""
    if not isinstance(value, Mapping):
        found.append(Violation(path, value, "must be an object"))
        return {}
    classes, result = metadata["classes"](), dict(before)
    for name, fields in value.items():
        where = f"{path}.{name}"
        if not isinstance(fields, Mapping):
            found.append(Violation(where, fields, "must be an object"))
        elif name in classes:
            settings = result.get(name) or classes[name]()
            result[name] = dataclasses.replace(settings, **merge(settings, fields, found, f"{where}.", strict=strict))
        elif strict:
            found.append(Violation(where, fields, shorthand.not_installed(name, classes, metadata["group"])))
        else:
            result[name] = dict(fields)
    return {name: settings for name, settings in result.items() if settings != type(settings)()}


def _item_of(settings: object, path: str) -> object:
    """An item, by default, of the list in the object at a dotted `path`."""
    for name in path.rstrip(".").split("."):
        settings = getattr(settings, name)
    (item_class,) = (item for _, hint in fields_of(type(settings)).values() if (item := item_class_of(hint)))
    return item_class()


def check(settings: object, path: str = "") -> list[Violation]:
    """Every field of `settings`, nested ones included, that is outside its bounds or of the wrong type."""
    found: list[Violation] = []
    for name, (field, hint) in fields_of(type(settings)).items():
        value = getattr(settings, name)
        if "classes" in field.metadata:
            found += _check_by_name(field.metadata["classes"](), value, f"{path}{name}.")
        elif dataclasses.is_dataclass(hint):
            found += check(value, f"{path}{name}.")
        elif item_class_of(hint):
            for index, item in enumerate(value):
                found += check(item, f"{path}{name}[{index}].")
        elif message := _read(value, hint, field.metadata)[1]:
            found.append(Violation(f"{path}{name}", value, message))
    return found


def _check_by_name(classes: Mapping[str, type], value: Mapping[str, Any], path: str) -> list[Violation]:
    """What is not registered is not checked; it cannot be used either."""
    found: list[Violation] = []
    for name, settings in value.items():
        if name not in classes:
            continue
        if isinstance(settings, classes[name]):
            found += check(settings, f"{path}{name}.")
        else:
            found.append(Violation(f"{path}{name}", settings, f"must be of type {classes[name].__name__}"))
    return found


def _read(value: object, hint: Any, metadata: Mapping[str, Any]) -> tuple[Any, str | None]:
    """The value as the field's type, or what is wrong with it."""
    kind, nullable = kind_of(hint)
    if value is None:
        return None, None if nullable else "must not be null"
    if typing.get_origin(kind) is tuple:
        length = len(typing.get_args(kind))
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != length:
            return value, f"must be a list of {length} numbers"
        items = [_read_number(item, float, metadata) for item in value]
        return tuple(item for item, _ in items), next((message for _, message in items if message), None)
    if kind in (int, float):
        return _read_number(value, kind, metadata)
    choices, pattern = choices_of(kind, metadata), metadata.get("pattern")
    if choices or pattern:
        return value, _wrong_text(value, choices, pattern)
    return value, None if isinstance(value, kind) else f"must be a {JSON_TYPES[kind]}"


def _wrong_text(value: object, choices: Sequence[str], pattern: Pattern | None) -> str | None:
    if value in choices or (pattern and isinstance(value, str) and re.fullmatch(pattern.regex, value)):
        return None
    allowed = [f"one of {', '.join(map(repr, choices))}"] if choices else []
    near = difflib.get_close_matches(str(value), choices, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"must be {' or '.join([*allowed, *([pattern.words] if pattern else [])])}{hint}"


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


def _unknown(name: str, known: Iterable[str]) -> str:
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"is not known; did you mean {nearest[0]!r}?" if nearest else f"is not known; known: {', '.join(known)}"
