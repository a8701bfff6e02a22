"""What installed packages add: methods, backbones and transforms by name, as entry points.

A package registers a name in its ``pyproject.toml``::

    [project.entry-points."manyview.backbones"]
    tiny_mixer = "mixer:TinyMixer"

Nothing of a plugin is imported before it is asked for. Then it may fail in any way: that is told, and nothing else
suffers.
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
    """That registers it, with its version."""
    problem: str
    """A sentence for users, without the texts of exceptions."""
    traceback: str = field(default="", repr=False)
    """For the operator's log."""

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
    """From now on be as if no package had registered anything."""
    global _left_out
    _left_out = True
    names.cache_clear()


@functools.cache
def names(group: str) -> tuple[str, ...]:
    """The names registered in `group`, in order, whether they can be loaded or not. Imports no plugin."""
    if _left_out:
        return ()
    return tuple(sorted({entry.name for entry in metadata.entry_points(group=group)}))


def load(group: str, errors: list[PluginError]) -> dict[str, object]:
    """Every plugin of `group` by name; those that cannot be used are appended to `errors`."""
    found: dict[str, object] = {}
    for name in names(group):
        try:
            found[name] = load_one(group, name)
        except PluginBroken as broken:
            errors.append(broken.error)
    return found


def load_one(group: str, name: str) -> object:
    """What the entry point `name` of `group` names.

    Raises:
        PluginBroken: it cannot be imported, its name is none, or it is not registered exactly once.
    """
    entries = list(metadata.entry_points(group=group, name=name))
    if not NAME.fullmatch(name):
        raise PluginBroken(group, name, "its name is to begin with a letter or digit and go on with those, _, . and -")
    if len(entries) != 1:
        raise PluginBroken(group, name, f"it is to be registered once, and is {len(entries)} times")
    try:
        return entries[0].load()
    except (Exception, SystemExit) as error:
        raise PluginBroken(group, name, f"it cannot be loaded ({type(error).__name__})", error) from error


def _packages(group: str, name: str) -> list[str]:
    found = (entry.dist for entry in metadata.entry_points(group=group, name=name))
    return sorted("an unknown package" if dist is None else f"{dist.name} {dist.version}" for dist in found)
