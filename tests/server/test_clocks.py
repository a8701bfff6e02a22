"""Nothing on the server measures a duration with the clock on the wall, which may jump."""

from __future__ import annotations

import re
from pathlib import Path

import manyview_server

ROOT = Path(manyview_server.__file__).parent
WALL_CLOCK = re.compile(r"\btime\.time(_ns)?\b|\bfrom time import .*\btime\b|\bdatetime\.(now|utcnow|today)\b")
SHOWN_ONLY = {
    "front/app.py": "when the server was started, in GetServerInfo",
    "store": "when something was created, and times of events: they are shown, and made not to decrease",
}
"""The modules that may read it, and what for."""


def readings(path: Path) -> list[int]:
    """The lines that name a clock on the wall."""
    return [number for number, line in enumerate(path.read_text().splitlines(), start=1) if WALL_CLOCK.search(line)]


def test_the_clock_on_the_wall_is_read_only_where_times_are_shown() -> None:
    found = {
        f"{name}:{line}"
        for path in ROOT.rglob("*.py")
        for line in readings(path)
        if (name := str(path.relative_to(ROOT))) not in SHOWN_ONLY and name.partition("/")[0] not in SHOWN_ONLY
    }
    assert not found


def test_the_test_above_sees_readings() -> None:
    assert readings(ROOT / "front/app.py")
