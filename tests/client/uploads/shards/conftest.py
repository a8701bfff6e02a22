"""Real tar files, and what an upload takes from them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from manyview._types.uploads import SkippedFiles
from manyview._uploads.encoded_image import EncodedImage
from manyview._uploads.shards.member_choice import MemberChoice
from manyview._uploads.shards.samples import samples
from manyview._uploads.skipped import SkippedCount

Members = Sequence[tuple[str, bytes | str]]
"""Names with contents. A content "=name" is a hard link, and "->name" is a symbolic link."""


class Taken:
    """The images of a shard, and the members that were passed over."""

    def __init__(self, path: Path, choice: MemberChoice, limit: int) -> None:
        skipped = SkippedCount()
        self.images: list[EncodedImage] = list(
            samples(path, path.as_posix(), skipped, max_image_bytes=limit, choice=choice)
        )
        self.skipped: tuple[SkippedFiles, ...] = skipped.summary()
        self._path = path

    @property
    def stored(self) -> list[tuple[str, str, bytes]]:
        return [(image.key, image.label, image.data) for image in self.images if image.error is None]

    @property
    def labels(self) -> dict[str, str]:
        return {image.key: image.label for image in self.images if image.error is None}

    @property
    def refused(self) -> dict[str, str]:
        return {image.key: f"{image.error.reason} {image.error.message}" for image in self.images if image.error}

    @property
    def passed_over(self) -> dict[str, list[str]]:
        """Return the names of members by reason."""
        return {files.reason: [name.removeprefix(f"{self._path}:") for name in files.names] for files in self.skipped}

    @property
    def damage(self) -> str:
        """Return why the shard could not be read to its end."""
        return self.refused[self._path.as_posix()]


@pytest.fixture
def shard(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a tar file."""

    def write(members: Members, name: str = "a.tar", mode: Any = "w", form: int = tarfile.PAX_FORMAT) -> Path:
        with tarfile.open(tmp_path / name, mode, format=form) as tar:
            for member, content in members:
                info = tarfile.TarInfo(member)
                if isinstance(content, str):
                    is_hard = content.startswith("=")
                    info.type = tarfile.LNKTYPE if is_hard else tarfile.SYMTYPE
                    info.linkname = content.removeprefix("=") if is_hard else content.removeprefix("->")
                    tar.addfile(info)
                else:
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        return tmp_path / name

    return write


@pytest.fixture
def take(shard: Callable[..., Path]) -> Callable[..., Taken]:
    """A function that writes a tar file and reads it, or reads one that exists."""

    def read(
        members: Members | Path, image: str | None = None, label: str | None = None, limit: int = 1000, **options: Any
    ) -> Taken:
        path = members if isinstance(members, Path) else shard(members, **options)
        return Taken(path, MemberChoice(image, label), limit)

    return read
