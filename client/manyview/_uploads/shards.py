"""WebDataset shards: tar files in which the members of one sample follow each other and share a name up to its first
dot."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from manyview._uploads.skipped import SkippedCount

_IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "ppm"})
_LABELS = frozenset({"cls", "txt", "json"})
_SHARD_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


def is_shard(path: Path) -> bool:
    """Is this a shard by its name? Upper and lower case are alike."""
    return path.name.lower().endswith(_SHARD_SUFFIXES)


@dataclass
class Sample:
    """One image of a shard. `key` is the sample's name, unless its JSON has another one. The label is from cls, JSON or
    txt."""

    key: str
    data: bytes = b""
    label: str = ""


def samples(path: Path, skipped: SkippedCount) -> Iterator[Sample]:
    """Yield the images of a shard in its order. The shard is read as a stream. `skipped` counts the members that
    belong to no image.

    Raises ValueError if the file is not a tar file or has no images.
    """
    found = 0
    try:
        for sample in _samples(path):
            if sample.data:
                found += 1
                yield sample
            elif sample.key:
                skipped.add("NO_IMAGE", f"{path}:{sample.key}")
    except tarfile.TarError as error:
        raise ValueError(f"{path} is not a readable tar file: {error}") from error
    if not found:
        raise ValueError(f"there are no images in the shard {path}: expected members named *.jpg, *.png or *.webp")


def _samples(path: Path) -> Iterator[Sample]:
    name, sample = "", Sample("")
    with tarfile.open(path, "r|*") as tar:
        for member in tar:
            if not member.isfile():
                continue
            folder, _, file = member.name.rpartition("/")
            stem, _, suffix = file.partition(".")
            base = f"{folder}/{stem}" if folder else stem
            if base != name:
                yield sample
                name, sample = base, Sample(base)
            if suffix.lower() in _IMAGES | _LABELS and (content := tar.extractfile(member)) is not None:
                _add(sample, suffix.lower(), content.read())
        yield sample


def _add(sample: Sample, suffix: str, content: bytes) -> None:
    if suffix in _IMAGES:
        sample.data = content
    elif suffix != "json":
        sample.label = sample.label or content.decode("utf-8", "replace").strip()
    else:
        fields = json.loads(content)
        if isinstance(fields, dict):
            label = next((fields[name] for name in ("label", "cls", "class") if fields.get(name) is not None), "")
            sample.label = sample.label or str(label)
            key = fields.get("key")
            sample.key = sample.key if key is None or key == "" else str(key)
