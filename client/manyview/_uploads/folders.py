"""The image files and shards below a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from manyview._uploads.shards import is_shard
from manyview._uploads.skipped import SkippedCount

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".ppm"})


@dataclass(frozen=True)
class FoundFile:
    """One file that an upload takes: an image, or a shard."""

    path: Path
    key: str
    label: str = ""
    is_shard: bool = False


def list_files(path: Path, skipped: SkippedCount) -> list[FoundFile]:
    """Return the images below a folder in sorted order, one file, or one shard. `skipped` counts the other files.

    Raises FileNotFoundError if `path` does not exist, and ValueError if nothing below it can be uploaded.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not path.is_dir():
        return [FoundFile(path, path.as_posix(), is_shard=is_shard(path))]
    files = sorted(Path(folder, name) for folder, _, names in os.walk(path) for name in names if name[0] != ".")
    found = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not found:
        tar_files = [FoundFile(file, file.as_posix(), is_shard=True) for file in files if is_shard(file)]
        if not tar_files:
            wanted = ", ".join(sorted(SUFFIXES))
            raise ValueError(f"no images below the folder {path}: {len(files)} files, none of them {wanted} or .tar")
        return tar_files
    relative = [file.relative_to(path) for file in found]
    # The label is the folder that an image lies in. The first folder below `path` may be "train" or "validation".
    return [FoundFile(path / name, name.as_posix(), name.parent.name) for name in relative]
