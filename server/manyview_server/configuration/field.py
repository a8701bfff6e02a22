"""One field of a settings class: its description, its bounds, and what its type means.

A settings class is a frozen, keyword-only dataclass whose fields are made by `setting`. A field holds a bool, int,
float or str, a Literal, a tuple of floats of fixed length, an optional one of these, another settings class, or a tuple
of any number of another settings class. One made by `settings_by_name` holds settings of classes that are registered
elsewhere, by name.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Names = Sequence[str] | Callable[[], Sequence[str]]

BOUNDS: Mapping[str, tuple[str, str]] = {
    "minimum": ("minimum", "at least"),
    "exclusive_minimum": ("exclusiveMinimum", "above"),
    "maximum": ("maximum", "at most"),
    "exclusive_maximum": ("exclusiveMaximum", "below"),
}
"""Bound in a field's metadata -> (JSON Schema keyword, words)."""

JSON_TYPES: Mapping[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """Texts that are allowed."""

    regex: str
    """Of the whole text."""
    words: str
    """The same for people: "timm/NAME"."""


def setting(
    default: Any,
    description: str,
    *,
    minimum: float | None = None,
    exclusive_minimum: float | None = None,
    maximum: float | None = None,
    exclusive_maximum: float | None = None,
    choices: Names | None = None,
    pattern: Pattern | None = None,
    needs: Sequence[str] = (),
    only: Mapping[str, Names] | None = None,
    at_most: str | None = None,
    at_least: str | None = None,
    width: str | None = None,
    presets: Mapping[str, Any] | None = None,
    fixed: bool = False,
) -> Any:
    """A dataclass field with a default, one sentence of description, and bounds (of each item, for a tuple).

    A text is one of `choices`, or fits `pattern`; with both, one of the two is enough. Names that are not known when
    the class is made, such as those of plugins, are given as a function.
    `needs` names sibling fields that must not be zero for this one to take effect, `only` a sibling and those of its
    choices with which it does, `at_most` and `at_least` one that bounds it. `width`, of a number of rows, names the one
    that says how wide they are: it can be given as [rows, width], too. `presets`, of settings that hold a tuple of
    settings: values to begin from, by name. `short_forms` reads all of these. `fixed`: a checkpoint's tensors or
    numbers depend on it, so that a run which goes on from one cannot change it.
    """
    bounds = {
        "minimum": minimum,
        "exclusive_minimum": exclusive_minimum,
        "maximum": maximum,
        "exclusive_maximum": exclusive_maximum,
        "choices": choices,
        "pattern": pattern,
    }
    metadata: dict[str, Any] = {name: bound for name, bound in bounds.items() if bound is not None}
    metadata |= {"description": description, "needs": tuple(needs), "fixed": fixed, "presets": presets}
    metadata |= {"only": only or {}}
    metadata |= {"at_most": at_most, "at_least": at_least, "width": width}
    return dataclasses.field(default=default, metadata=metadata)


def settings_by_name(classes: Callable[[], Mapping[str, type]], description: str, group: str) -> Any:
    """A dataclass field that maps names to settings; a name that is missing means that class's defaults.

    Args:
        classes: gives the settings classes by name. Nothing is asked of it before it is needed.
        group: of entry points, with which packages register them.
    """
    metadata = {"description": description, "classes": classes, "group": group}
    return dataclasses.field(default_factory=dict, metadata=metadata)


def changed(settings_class: type, name: str, default: Any, **metadata: Any) -> Any:
    """The field `name` of a parent class again, with another default and perhaps another bound or description."""
    parent = settings_class.__dataclass_fields__[name]  # type: ignore[attr-defined]
    return dataclasses.field(default=default, metadata={**parent.metadata, **metadata})


def fields_of(settings_class: type) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(settings_class)
    return {field.name: (field, hints[field.name]) for field in dataclasses.fields(settings_class)}


def item_class_of(hint: Any) -> Any:
    """The settings class of a tuple of any number of them; None for every other field."""
    arguments = typing.get_args(hint)
    is_list = typing.get_origin(hint) is tuple and arguments[-1] is Ellipsis
    return arguments[0] if is_list else None


def kind_of(hint: Any) -> tuple[Any, bool]:
    """A field's type without None, and whether None was part of it."""
    if not isinstance(hint, types.UnionType):
        return hint, False
    (kind,) = (part for part in hint.__args__ if part is not types.NoneType)
    return kind, True


def choices_of(kind: Any, metadata: Mapping[str, Any]) -> tuple[str, ...]:
    if typing.get_origin(kind) is Literal:
        return typing.get_args(kind)
    return names_of(metadata.get("choices", ()))


def names_of(names: Names) -> tuple[str, ...]:
    return tuple(names() if callable(names) else names)
