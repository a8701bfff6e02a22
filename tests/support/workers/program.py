"""The commands that run workers and servers of the tests."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = str(Path(__file__).parents[2])


def command(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that calls `main` of the module with this name."""
    # A file that is run as a program could not import the others: its folder is no root of imports.
    program = f"import sys; sys.path.insert(0, {TESTS!r}); from {module} import main; main()"
    return (sys.executable, "-c", program, *arguments)
