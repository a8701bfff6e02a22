"""Folders of labelled images as a data set on disk, as a trainer reads it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from manyview_server.store.images.shard_writers import ShardWriter
from manyview_server.store.images.shards import SNAPSHOT_DTYPE, image_id_of

TRAIN, HELD_OUT = "train", "validation"


@dataclass(frozen=True)
class StoredImages:
    """A data set on disk, with the snapshots of its two parts."""

    directory: Path
    train: npt.NDArray[Any]
    held_out: npt.NDArray[Any]


def store(folder: Path, directory: Path) -> StoredImages:
    """Store the images train/CLASS/* and validation/CLASS/* of `folder` in a data set in `directory`."""
    directory.mkdir(parents=True)
    labels = {path.name: number for number, path in enumerate(sorted((folder / TRAIN).iterdir()))}
    writer = ShardWriter(directory)
    try:
        parts = [_append(writer, folder / part, labels) for part in (TRAIN, HELD_OUT)]
        writer.sync()
    finally:
        writer.close()
    return StoredImages(directory, *parts)


def _append(writer: ShardWriter, folder: Path, labels: dict[str, int]) -> npt.NDArray[Any]:
    """Append the images CLASS/* of `folder`, and return their snapshot."""
    paths = sorted(path for path in folder.glob("*/*") if path.is_file())
    rows = np.zeros(len(paths), SNAPSHOT_DTYPE)
    for row, path in zip(rows, paths, strict=True):
        data = path.read_bytes()
        digest = hashlib.sha256(data).digest()
        image_id = image_id_of(digest)
        meta = {"sha256": digest.hex(), "key": path.name, "label": path.parent.name}
        row["shard"], row["offset"] = writer.append(image_id, path.suffix[1:], data, meta)
        row["image_id"], row["label"], row["length"] = image_id, labels[path.parent.name], len(data)
        with Image.open(path) as image:
            row["width"], row["height"] = image.size
    return rows
