"""The control groups of this process: each of them may limit its memory and its cores.

Linux shows groups as directories: in one tree for all controllers (version 2), in one tree for each controller
(version 1), or in both. A process is in one group of each tree, and the limits of all groups above it hold too. A
container sees its own part of a tree, mounted at the place where the host has the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class Group:
    """A directory of a control group, and the version of its tree, 1 or 2."""

    directory: Path
    version: int

    def numbers(self, name: str) -> tuple[int, ...] | None:
        """Return the numbers in one of the group's files, or None where it is missing or says "max"."""
        try:
            return tuple(int(word) for word in (self.directory / name).read_text().split())
        except (OSError, ValueError):
            return None

    def counter(self, file: str, name: str) -> int:
        """Return the value of the line "name value" in one of the group's files, or 0 if there is no such line."""
        return counter(self.directory / file, name)


@dataclass(frozen=True, slots=True)
class _Mount:
    """A part of a tree, and the directory where it is mounted."""

    top: str
    """The group that is mounted, as a path in the tree."""
    point: Path


def groups(controller: str, root: Path = ROOT) -> list[Group]:
    """Return the groups of this process that a controller, such as "memory", may limit: its own, then those above it.

    Groups above the mount point cannot be seen. If the process's own group is not below the mount point, the group
    that is mounted stands for it.
    """
    found: list[Group] = []
    for version, path in _paths(controller, root):
        mounts = _mounts(controller, version, root)
        if mounts:
            found += [Group(directory, version) for directory in _upwards(path, mounts)]
    return found


def own_groups(controller: str, root: Path = ROOT) -> list[Group]:
    """Return the groups that this process itself is in, one for each version that is mounted."""
    first: dict[int, Group] = {}
    for group in groups(controller, root):
        first.setdefault(group.version, group)
    return list(first.values())


def counter(path: Path, name: str) -> int:
    """Return the value of the line "name value" in a file of the kernel, or 0 if there is no such line."""
    try:
        pairs = (line.split() for line in path.read_text().splitlines())
        return next(int(pair[1]) for pair in pairs if pair and pair[0].rstrip(":") == name)
    except (OSError, ValueError, IndexError, StopIteration):
        return 0


def _paths(controller: str, root: Path) -> Iterator[tuple[int, str]]:
    """Yield the version of each tree with this controller, and the path of the process's group in it."""
    for line in _lines(root / "proc/self/cgroup"):
        _, names, path = (*line.split(":", 2), "", "")[:3]
        if names == "" or controller in names.split(","):
            yield (2 if names == "" else 1), path


def _mounts(controller: str, version: int, root: Path) -> list[_Mount]:
    """Return the mounts of a tree, newest first. A mount hides an older one at the same place."""
    found: dict[Path, _Mount] = {}
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), (*after.split(), "", "", "")[:3]
        is_ours = kind == "cgroup2" if version == 2 else kind == "cgroup" and controller in options.split(",")
        if is_ours and len(fields) > 4:
            point = root / _unescaped(fields[4]).lstrip("/")
            found.pop(point, None)
            found[point] = _Mount(_unescaped(fields[3]), point)
    return list(reversed(found.values()))


def _upwards(path: str, mounts: list[_Mount]) -> Iterator[Path]:
    """Yield the directory of a group and those above it, up to the mount point."""
    directory, top = next(_places(path, mounts), (mounts[0].point, mounts[0].point))
    yield directory
    while directory != top:
        directory = directory.parent
        yield directory


def _places(path: str, mounts: list[_Mount]) -> Iterator[tuple[Path, Path]]:
    """Yield where the group can be seen: its directory, and the mount point above it."""
    for mount in mounts:
        top = mount.top.rstrip("/")
        if (path == top or path.startswith(f"{top}/")) and ".." not in path.split("/"):
            directory = mount.point / path[len(top) :].strip("/")
            if directory.is_dir():
                yield directory, mount.point


def _unescaped(text: str) -> str:
    """Return a path of mountinfo without its escapes: it has blanks and the like as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
