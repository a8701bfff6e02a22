"""Methods of installed packages: entry points of the group "manyview.methods", each a `MethodEntry`.

Such a method is trained by its name like any other. Its settings are a subclass of `TrainSettings` whose `method` is
that name, and its `build` returns a `Method`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager

from manyview_server import configuration
from manyview_server.learn import plugins
from manyview_server.learn.encoder import Encoder
from manyview_server.learn.methods.method import Method
from manyview_server.learn.methods.registration import MethodEntry
from manyview_server.learn.out_of_memory import is_out_of_memory
from manyview_server.learn.plugins import PluginBroken
from manyview_server.learn.settings import TrainSettings

GROUP = "manyview.methods"
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


def entry(name: str) -> MethodEntry:
    """Return the method that is registered as `name`. Raises PluginBroken if it does not exist or cannot be used."""
    found = _found(name)
    if isinstance(found, PluginBroken):
        raise found
    return found


def build(name: str, settings: TrainSettings) -> Method:
    """Build the method from settings in which nothing is left open.

    Raises:
        ValueError: the plugin refuses the settings, in its own words.
        PluginBroken: the plugin fails.
    """
    try:
        method = entry(name).build(settings)
    except ValueError:
        raise
    except Exception as error:
        raise PluginBroken(GROUP, name, f"building it failed ({type(error).__name__})", error) from error
    if not isinstance(method, Method) or not isinstance(getattr(method, "encoder", None), Encoder):
        raise PluginBroken(GROUP, name, f"it returned a {type(method).__name__} and not a Method with an Encoder")
    return method


@contextmanager
def name_plugin_in_errors(name: str) -> Iterator[None]:
    """Turn any error in a step of the method `name` into PluginBroken. Out-of-memory errors pass through unchanged."""
    try:
        yield
    except PluginBroken:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise PluginBroken(GROUP, name, f"a step of it failed ({type(error).__name__})", error) from error


@functools.cache
def _found(name: str) -> MethodEntry | PluginBroken:
    try:
        return _loaded(name)
    except PluginBroken as broken:
        return broken


def _loaded(name: str) -> MethodEntry:
    if name not in plugins.names(GROUP):
        raise PluginBroken(GROUP, name, "it is not installed")
    found = plugins.load_one(GROUP, name)
    if not NAME.fullmatch(name):
        raise PluginBroken(
            GROUP, name, "its name must start with a small letter and consist of small letters, digits and _"
        )
    if not isinstance(found, MethodEntry):
        raise PluginBroken(GROUP, name, f"it must be a MethodEntry, but is a {type(found).__name__}")
    try:
        problem = _find_problem(name, found)
    except Exception as error:
        raise PluginBroken(GROUP, name, f"its settings are wrong ({type(error).__name__})", error) from error
    if problem:
        raise PluginBroken(GROUP, name, problem)
    return found


def _find_problem(name: str, found: MethodEntry) -> str:
    """Return what is wrong with an entry, or an empty text."""
    if not issubclass(found.settings, TrainSettings):
        return f"its settings must be a subclass of TrainSettings, but are {found.settings.__name__}"
    settings = found.settings()
    if settings.method != name:
        return f"the method of its settings must be {name!r}, but is {settings.method!r}"
    configuration.json_schema(found.settings)
    return ""
