"""Nothing on the server measures a duration with the clock on the wall, which may jump."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import manyview_server

ROOT = Path(manyview_server.__file__).parent
WALL_CLOCKS = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow")}
SHOWN_ONLY = {
    "front/app.py": "when the server was started, in GetServerInfo",
    "store": "when something was created, and times of events: they are shown, and made not to decrease",
}
"""Who may read it, and what for."""


def readings(path: Path) -> Iterator[int]:
    """The lines that name a clock on the wall."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=name) if (module, name) in WALL_CLOCKS:
                yield node.lineno
            case ast.ImportFrom(module=module, names=names) if any((module, one.name) in WALL_CLOCKS for one in names):
                yield node.lineno


def test_the_clock_on_the_wall_is_read_only_where_times_are_shown() -> None:
    found = {
        f"{name}:{line}"
        for path in ROOT.rglob("*.py")
        for line in readings(path)
        if (name := str(path.relative_to(ROOT))) not in SHOWN_ONLY and name.partition("/")[0] not in SHOWN_ONLY
    }
    assert not found


def test_the_test_above_sees_readings() -> None:
    assert list(readings(ROOT / "front/app.py"))
