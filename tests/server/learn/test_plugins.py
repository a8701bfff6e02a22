from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manyview_server.learn import plugins
from manyview_server.learn.plugins import PluginBroken, PluginError

GROUP = "manyview.things"

Register = Callable[..., None]


@pytest.fixture
def register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Register]:
    """Writes what an installer would leave of a package that registers things: name=value, ..."""
    monkeypatch.syspath_prepend(tmp_path)
    plugins.names.cache_clear()

    def write(package: str, entries: dict[str, str], group: str = GROUP) -> None:
        directory = tmp_path / f"{package}-1.2.dist-info"
        directory.mkdir()
        (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (directory / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]))

    yield write
    plugins.names.cache_clear()


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = types.ModuleType("things_of_a_package")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


def test_what_packages_register_is_loaded_by_name(register: Register, module: types.ModuleType) -> None:
    module.one, module.two = object(), object()  # type: ignore[attr-defined]
    register("first", {"b": "things_of_a_package:one"})
    register("second", {"a": "things_of_a_package:two"})
    register("third", {"c": "things_of_a_package:two"}, group="manyview.others")
    broken: list[PluginError] = []
    assert plugins.names(GROUP) == ("a", "b")
    assert plugins.load(GROUP, broken) == {"a": module.two, "b": module.one}
    assert broken == []
    assert plugins.load_one(GROUP, "b") is module.one
    assert plugins.names("manyview.nothing") == ()


def test_names_are_listed_without_importing_anything(register: Register) -> None:
    register("first", {"a": "a_module_that_is_not_there:thing"})
    assert plugins.names(GROUP) == ("a",)


def test_a_plugin_that_fails_is_reported_and_the_others_are_loaded(
    register: Register, module: types.ModuleType, tmp_path: Path
) -> None:
    module.good = object()  # type: ignore[attr-defined]
    (tmp_path / "failing_of_a_package.py").write_text("raise RuntimeError('a secret')")
    (tmp_path / "leaving_of_a_package.py").write_text("raise SystemExit(3)")
    entries = {
        "good": "things_of_a_package:good",
        "failing": "failing_of_a_package:thing",
        "leaving": "leaving_of_a_package:thing",
        "missing": "a_module_that_is_not_there:thing",
        "nameless": "things_of_a_package:nothing",
        "od d": "things_of_a_package:good",
    }
    register("first", entries)
    broken: list[PluginError] = []
    assert plugins.load(GROUP, broken) == {"good": module.good}
    problems = {plugin.name: plugin.problem for plugin in broken}
    assert problems == {
        "failing": "it cannot be loaded (RuntimeError)",
        "leaving": "it cannot be loaded (SystemExit)",
        "missing": "it cannot be loaded (ModuleNotFoundError)",
        "nameless": "it cannot be loaded (AttributeError)",
        "od d": "its name must start with a letter or digit and consist of letters, digits, _, . and -",
    }
    assert {plugin.package for plugin in broken} == {"first 1.2"}
    assert "a secret" in next(plugin.traceback for plugin in broken if plugin.name == "failing")
    assert not any("a secret" in str(plugin) for plugin in broken)


def test_a_name_that_two_packages_register_is_neither_ones(register: Register, module: types.ModuleType) -> None:
    module.one = object()  # type: ignore[attr-defined]
    register("first", {"a": "things_of_a_package:one"})
    register("second", {"a": "things_of_a_package:one"})
    with pytest.raises(PluginBroken, match="registered once, but is registered 2 times") as refused:
        plugins.load_one(GROUP, "a")
    assert refused.value.error.package == "first 1.2 and second 1.2"
    with pytest.raises(PluginBroken, match="registered 0 times"):
        plugins.load_one(GROUP, "z")
