"""Files and folders that a command names. They are checked before the first call to the server."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import typer

from manyview._progress.display import is_terminal, width_of
from manyview._types.uploads import SkippedFiles, skipped_lines, wrapped

_PATTERN = frozenset("*?[{")


def require_sources(paths: Sequence[str] | None, hint: str = "") -> None:
    """Raise FileNotFoundError, with a hint, if none of these files and folders exists. If only some are missing, or if
    there are patterns, the upload reports them."""
    for path in paths or ():
        if not _PATTERN.isdisjoint(path) or os.path.lexists(path):
            return
    if paths:
        error = FileNotFoundError(f"{' and '.join(paths[:3])} {'does' if len(paths) == 1 else 'do'} not exist")
        if hint:
            error.add_note(hint)
        raise error


def require_folder_of(path: Path, option: str = "--out") -> None:
    """Raise FileNotFoundError if the folder of a file to write does not exist: the work would be lost."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{option} {path}: the directory {path.parent} does not exist")


def print_skipped(skipped: Sequence[SkippedFiles]) -> None:
    """Print on stderr how many files of folders were passed over."""
    print_report(skipped_lines(skipped))


def skipped_json(skipped: Sequence[SkippedFiles]) -> list[dict[str, Any]]:
    """Return the files that were passed over as values for JSON."""
    return list(map(asdict, skipped))


def print_report(lines: Iterable[str], stream: TextIO | None = None) -> None:
    """Print the lines of a report, by default on stderr. A terminal gets them broken between words, and a file as they
    are."""
    stream = stream or sys.stderr
    if is_terminal(stream):
        lines = wrapped(lines, width_of(stream))
    for line in lines:
        typer.echo(line, file=stream)
