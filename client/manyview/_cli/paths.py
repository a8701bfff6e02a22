"""Files and folders that a command names. They are checked before the first call to the server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import typer

from manyview._types.uploads import SkippedFiles
from manyview._uploads.report_text import skipped_lines

_PATTERN = frozenset("*?[{")


def require_sources(paths: Sequence[str] | None) -> None:
    """Raise FileNotFoundError if none of these files and folders exists. If only some are missing, or if there are
    patterns, the upload reports them."""
    for path in paths or ():
        if not _PATTERN.isdisjoint(path) or os.path.lexists(path):
            return
    if paths:
        raise FileNotFoundError(f"{' and '.join(paths[:3])} {'does' if len(paths) == 1 else 'do'} not exist")


def require_folder_of(path: Path, option: str = "--out") -> None:
    """Raise FileNotFoundError if the folder of a file to write does not exist: the work would be lost."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{option} {path}: the directory {path.parent} does not exist")


def print_skipped(skipped: Sequence[SkippedFiles]) -> None:
    """Print on stderr how many files of folders were passed over."""
    for line in skipped_lines(skipped):
        typer.echo(line, err=True)
