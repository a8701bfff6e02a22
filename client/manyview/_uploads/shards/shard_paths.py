"""The names of shards, and the patterns that stand for several of them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_MOST_PATHS = 1_000_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_shard(path: Path) -> bool:
    """Is this a shard by its name? Upper and lower case are alike."""
    return path.name.lower().endswith(_SUFFIXES)


def expand(path: str | os.PathLike[str]) -> list[Path]:
    """Return the paths that `path` stands for: itself if it exists, else the files of a pattern.

    A pattern has braces (`{000..010}`, `{train,val}`), the wildcards `*`, `?` and `[...]`, or both. It may begin with
    `file:`. Raises ValueError for addresses on a network.
    """
    text = os.fspath(path)
    if os.path.lexists(text):
        return [Path(text)]
    local = re.sub("^file:(//(?=/))?", "", text)
    if re.match(r"[a-z][a-z0-9+.-]+:(//|$)|pipe:", local) and not os.path.lexists(local):
        raise ValueError(f"{text} is not a local path: download the files first, then upload them from a folder")
    if os.path.lexists(local):
        return [Path(local)]
    found = [file for part in _alternatives(local) for file in _matches(part)]
    if len(found) > _MOST_PATHS:
        raise ValueError(f"{text} stands for {len(found):,} paths; at most {_MOST_PATHS:,} are allowed")
    return found


def _alternatives(text: str) -> Iterator[str]:
    """Yield `text` once for each value of its braces, as a shell does."""
    for braces in _BRACES.finditer(text):
        values = _values(braces[1])
        if values is not None:
            for value in values:
                yield from _alternatives(text[: braces.start()] + value + text[braces.end() :])
            return
    yield text


def _values(inside: str) -> list[str] | None:
    if bounds := _RANGE.fullmatch(inside):
        first, last = int(bounds[1]), int(bounds[2])
        if abs(last - first) >= _MOST_PATHS:
            raise ValueError(f"{{{inside}}} stands for more than {_MOST_PATHS:,} names")
        width = len(bounds[1]) if bounds[1][0] == "0" or bounds[2][0] == "0" else 0
        step = 1 if first <= last else -1
        return [f"{number:0{width}d}" for number in range(first, last + step, step)]
    return inside.split(",") if "," in inside else None


def _matches(part: str) -> list[Path]:
    if os.path.lexists(part) or not glob.has_magic(part):
        return [Path(part)]
    # A pattern that no file fits is the name of a file that does not exist.
    return [Path(file) for file in sorted(glob.glob(part, recursive=True))] or [Path(part)]
