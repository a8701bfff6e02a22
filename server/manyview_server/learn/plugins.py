"""Plugins: methods, backbones and transforms that installed packages add by name, as entry points.

A package registers a name in its ``pyproject.toml``::

    [project.entry-points."manyview.backbones"]
    tiny_mixer = "mixer:TinyMixer"

A plugin is imported when it is needed, not before. Errors in it are reported, and the other plugins keep working.
"""

from __future__ import annotations

import functools
import re
import traceback
from dataclasses import dataclass, field
from importlib import metadata

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class PluginError:
    """Why a plugin cannot be used."""

    group: str
    name: str
    package: str
    """The package that registers it, with its version."""
    problem: str
    """A sentence for users, without texts of exceptions."""
    traceback: str = field(default="", repr=False)
    """The traceback, for the operator's log."""

    def __str__(self) -> str:
        return f"plugin {self.name!r} of {self.package} ({self.group}): {self.problem}"


class PluginBroken(ValueError):
    """A plugin that cannot be used; `error` says which and why."""

    def __init__(self, group: str, name: str, problem: str, cause: BaseException | None = None) -> None:
        story = "" if cause is None else "".join(traceback.format_exception(cause))
        package = " and ".join(_packages(group, name)) or "no package"
        self.error = PluginError(group=group, name=name, package=package, problem=problem, traceback=story)
        super().__init__(str(self.error))


_left_out = False


def leave_out() -> None:
    """Behave from now on as if no package had registered anything."""
    global _left_out
    _left_out = True
    names.cache_clear()


@functools.cache
def names(group: str) -> tuple[str, ...]:
    """Return the sorted names that are registered in `group`, including broken plugins. This imports no plugin."""
    if _left_out:
        return ()
    return tuple(sorted({entry.name for entry in metadata.entry_points(group=group)}))


def load(group: str, errors: list[PluginError]) -> dict[str, object]:
    """Return every plugin of `group` by name; append an error for each that cannot be used to `errors`."""
    found: dict[str, object] = {}
    for name in names(group):
        try:
            found[name] = load_one(group, name)
        except PluginBroken as broken:
            errors.append(broken.error)
    return found


def load_one(group: str, name: str) -> object:
    """Load the entry point `name` of `group`.

    Raises:
        PluginBroken: it cannot be imported, its name is not allowed, or it is not registered exactly once.
    """
    entries = list(metadata.entry_points(group=group, name=name))
    if not NAME.fullmatch(name):
        raise PluginBroken(
            group, name, "its name must start with a letter or digit and consist of letters, digits, _, . and -"
        )
    if len(entries) != 1:
        raise PluginBroken(group, name, f"it must be registered once, but is registered {len(entries)} times")
    try:
        return entries[0].load()
    except (Exception, SystemExit) as error:
        raise PluginBroken(group, name, f"it cannot be loaded ({type(error).__name__})", error) from error


def _packages(group: str, name: str) -> list[str]:
    found = (entry.dist for entry in metadata.entry_points(group=group, name=name))
    return sorted("an unknown package" if dist is None else f"{dist.name} {dist.version}" for dist in found)
