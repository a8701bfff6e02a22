"""The bytes that the links of a shard lead to."""

from __future__ import annotations

import os
import posixpath
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from manyview._uploads.shards.tar_members import ShardUnreadable, TarMember, is_compressed, read_members

_MEMORY_BYTES = 32 << 20
_CHUNK_BYTES = 1 << 20
_MOST_HOPS = 8


class LinkTargets:
    """The files of a shard that its links lead to. A plain tar file is read where they lie. A compressed one cannot be
    read from the middle, and its targets are copied to a temporary file, which is on the disk if it is large.

    `links` maps names of links to the names that they lead to. Close it after use.
    """

    def __init__(self, path: Path, links: Mapping[str, str]) -> None:
        self._links = links
        self._places: dict[str, tuple[int, int]] = {}
        self._copies = is_compressed(path)
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_MEMORY_BYTES) if self._copies else path.open("rb")  # noqa: SIM115  (`close` closes it)
        wanted = set(links.values()) - links.keys()
        # A file at the end of a damaged shard is cut off.
        with suppress(ShardUnreadable):
            for member in read_members(path):
                name = normal(member.name)
                if member.is_file and name in wanted and (start := self._start(member)) is not None:
                    self._places[name] = start, member.num_bytes

    def _start(self, member: TarMember) -> int | None:
        """Return where the bytes of a file begin in `_file`, or None if they are not there."""
        if not self._copies:
            start = member.data_offset
            end = self._file.seek(0, os.SEEK_END)
            return start if start is not None and start + member.num_bytes <= end else None
        start = self._file.seek(0, os.SEEK_END)
        for at in range(0, member.num_bytes, _CHUNK_BYTES):
            self._file.write(member.read(_CHUNK_BYTES, at))
        return start

    def num_bytes(self, link: str) -> int | None:
        """Return the size of the file that a link leads to, or None if it leads out of the shard."""
        place = self._find(link)
        return None if place is None else place[1]

    def read(self, link: str, most: int) -> bytes:
        """Return at most `most` bytes from the start of the file that a link leads to."""
        place = self._find(link)
        assert place is not None
        self._file.seek(place[0])
        return self._file.read(min(most, place[1]))

    def _find(self, link: str) -> tuple[int, int] | None:
        name = normal(link)
        for _ in range(_MOST_HOPS):
            if name not in self._links:
                break
            name = self._links[name]
        return self._places.get(name)

    def close(self) -> None:
        self._file.close()


def normal(name: str) -> str:
    """Return one spelling of a name: `./a//b` and `/a/b` are `a/b`."""
    return posixpath.normpath(name).lstrip("/")


def target_of(member: TarMember) -> str:
    """Return the name to which a link leads. A symbolic link starts at its own folder."""
    if member.is_hard_link:
        return normal(member.link_target)
    return normal(posixpath.join(posixpath.dirname(member.name), member.link_target))
