"""Declare a setting: a dataclass field with a default, a sentence, bounds, and rules between it and its siblings.

A settings class is a frozen, keyword-only dataclass whose fields are made by `setting`. A field holds a bool, int,
float or str, a Literal, a tuple of floats of fixed length, an optional one of these, another settings class, or a tuple
of any number of another settings class. A field made by `settings_by_name` holds settings of classes that are
registered elsewhere, by name.

`json_schema` describes such a class, and all checks go by that description.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Names = Sequence[str] | Callable[[], Sequence[str]]
"""Names, or a function that returns them, for names that are not known when the class is made (those of plugins)."""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """Texts that are allowed."""

    regex: str
    """It must match the whole text."""
    words: str
    """The same for people: "timm/NAME"."""


@dataclass(frozen=True, kw_only=True)
class DefaultPreset:
    """The default of a field is the preset `small` while a sibling is below a bound, and otherwise `large`."""

    sibling: str
    below: int
    small: str
    large: str
    small_value: Any
    """The preset `small` as the field's value. The field's own default is the preset `large`."""


def setting(
    default: Any,
    description: str,
    *,
    minimum: float | None = None,
    exclusive_minimum: float | None = None,
    maximum: float | None = None,
    exclusive_maximum: float | None = None,
    choices: Names = (),
    pattern: Pattern | None = None,
    needs: Sequence[str] = (),
    only: Mapping[str, Names] | None = None,
    at_most: str | None = None,
    at_least: str | None = None,
    width: str | None = None,
    presets: Mapping[str, Any] | None = None,
    default_preset: DefaultPreset | None = None,
    fixed: bool = False,
    older: Any = None,
) -> Any:
    """Make a dataclass field.

    Args:
        description: one sentence, for users.
        minimum, exclusive_minimum, maximum, exclusive_maximum: bounds of a number, or of each number of a tuple.
        choices: texts that are allowed.
        pattern: further texts that are allowed.
        needs: siblings. While one of them is zero, this field has no effect, and a value of it is refused.
        only: siblings and values of them. While a sibling has another value, this field has no effect.
        at_most: a sibling that is the largest value allowed.
        at_least: a sibling that is the smallest value allowed.
        width: for a number of rows, the sibling that says how wide they are. [rows, width] is allowed then, too.
        presets: for settings that hold a list of settings, values to start from, by name (see `shorthand`).
        default_preset: a sibling decides which of two presets is the default.
        older: the value that a stored configuration stands for if it lacks the field, because it was stored before
            there was one. By default, the default.
        fixed: a checkpoint's tensors or numbers depend on it, so a run that continues from one cannot change it.
    """
    arguments = {name: value for name, value in locals().items() if name != "default"}
    return dataclasses.field(default=default, metadata=arguments)


def settings_by_name(classes: Callable[[], Mapping[str, type]], description: str, group: str) -> Any:
    """Make a dataclass field that maps names to settings; a name that is missing means that class's defaults.

    Args:
        classes: returns the settings classes by name. It is called when a schema or settings are needed, not before.
        group: the group of entry points with which packages register them.
    """
    metadata = {"description": description, "classes": classes, "group": group}
    return dataclasses.field(default_factory=dict, metadata=metadata)


def changed(settings_class: type, name: str, default: Any, **changes: Any) -> Any:
    """Make the field `name` of a parent class again, with another default and perhaps other arguments of `setting`.

    The other default holds at all sizes, unless `default_preset` is given, too.
    """
    parent = settings_class.__dataclass_fields__[name]  # type: ignore[attr-defined]
    return setting(default, **{**parent.metadata, "default_preset": None, **changes})
