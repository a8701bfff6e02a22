"""The names of shards, and the patterns that stand for several of them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_MOST_PATHS = 1_000_000
_RANGE = re.compile(r"(\d+)\.\.(\d+)(?:\.\.(\d+))?")


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
    names = list(islice(_alternatives(local), _MOST_PATHS + 1))
    if len(names) > _MOST_PATHS:
        raise ValueError(f"{text} stands for more than {_MOST_PATHS:,} names")
    return [file for name in names for file in _matches(name)]


def _alternatives(text: str) -> Iterator[str]:
    """Yield `text` once for each value of its braces, as a shell does."""
    start = text.find("{")
    end = _closing(text, start)
    if start < 0 or end < 0:
        yield text
        return
    values = _values(text[start + 1 : end])
    if values is None:  # these braces are a part of the name
        yield from (text[: start + 1] + rest for rest in _alternatives(text[start + 1 :]))
        return
    for value in values:
        for middle in _alternatives(value):
            for rest in _alternatives(text[end + 1 :]):
                yield text[:start] + middle + rest


def _closing(text: str, start: int) -> int:
    """Return the place of the brace that closes the one at `start`, or -1."""
    depth = 0
    for at in range(max(0, start), len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at
    return -1


def _values(inside: str) -> list[str] | None:
    """Return what stands between the commas of a pair of braces, or the numbers of a range, or None for neither."""
    if bounds := _RANGE.fullmatch(inside):
        first, last, step = int(bounds[1]), int(bounds[2]), max(1, int(bounds[3] or 1))
        if abs(last - first) >= _MOST_PATHS:
            raise ValueError(f"{{{inside}}} stands for more than {_MOST_PATHS:,} names")
        is_padded = any(len(bound) > 1 and bound[0] == "0" for bound in (bounds[1], bounds[2]))
        width = max(len(bounds[1]), len(bounds[2])) if is_padded else 0
        numbers = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
        return [f"{number:0{width}d}" for number in numbers]
    depth, parts = 0, [""]
    for character in inside:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts if len(parts) > 1 else None


def _matches(part: str) -> list[Path]:
    if os.path.lexists(part) or not glob.has_magic(part):
        return [Path(part)]
    # A pattern that no file fits is the name of a file that does not exist.
    return [Path(file) for file in sorted(glob.glob(part, recursive=True))] or [Path(part)]
