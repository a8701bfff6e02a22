"""The command line of scripted workers, and a count of what the process holds."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., tuple[str, ...]]


@pytest.fixture
def scripted(tmp_path: Path) -> Command:
    """The command of workers that follow a script: scripted(trainer={"die_at": 2})."""

    def command(**script: Any) -> tuple[str, ...]:
        script.setdefault("once_file", str(tmp_path / "starts"))
        return (sys.executable, str(Path(__file__).with_name("scripted_worker.py")), json.dumps(script))

    return command
