"""Settings classes: their fields and what the types mean, and their objects as JSON values and back."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

Settings = TypeVar("Settings")


def fields_of(settings_class: type) -> Mapping[str, tuple[dataclasses.Field[Any], Any]]:
    """Return (field, type) by name."""
    return _read_fields(typing.cast(Hashable, settings_class))


@functools.cache
def _read_fields(settings_class: Any) -> Mapping[str, tuple[dataclasses.Field[Any], Any]]:
    """Reading the types takes milliseconds, so the result is kept."""
    hints = typing.get_type_hints(settings_class)
    return {field.name: (field, hints[field.name]) for field in dataclasses.fields(settings_class)}


def item_class_of(hint: Any) -> Any:
    """Return the settings class of a tuple of any number of them; None for every other field."""
    arguments = typing.get_args(hint)
    is_list = typing.get_origin(hint) is tuple and arguments[-1] is Ellipsis
    return arguments[0] if is_list else None


def kind_of(hint: Any) -> tuple[Any, bool]:
    """Return a field's type without None, and whether None was part of it."""
    if not isinstance(hint, types.UnionType):
        return hint, False
    (kind,) = (part for part in hint.__args__ if part is not types.NoneType)
    return kind, True


def to_json(settings: object) -> dict[str, Any]:
    """Return settings as JSON values; `build` gives back an equal object."""
    return {name: value_to_json(getattr(settings, name)) for name in fields_of(type(settings))}


def value_to_json(value: Any) -> Any:
    """Return the value of a field as a JSON value."""
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, dict):
        return {name: value_to_json(item) for name, item in value.items()}
    return [value_to_json(item) for item in value] if isinstance(value, tuple) else value


def build(settings_class: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Return the settings of a complete configuration that was checked.

    Settings of plugins that are not installed stay JSON values.
    """
    fields = fields_of(settings_class)
    return settings_class(**{name: _build_field(*fields[name], value) for name, value in values.items()})


def _build_field(field: dataclasses.Field[Any], hint: Any, value: Any) -> Any:
    if "classes" in field.metadata:
        classes = field.metadata["classes"]()
        return {name: build(classes[name], item) if name in classes else item for name, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value)
    if item_class := item_class_of(hint):
        return tuple(build(item_class, item) for item in value)
    kind, _ = kind_of(hint)
    if typing.get_origin(kind) is tuple:
        return tuple(map(float, value))
    return float(value) if kind is float and value is not None else value
