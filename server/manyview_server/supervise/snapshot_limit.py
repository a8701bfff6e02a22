"""How many images a trainer can be told of: the snapshot of its data set travels in one message."""

from __future__ import annotations

from manyview_server.errors import FailedPrecondition
from manyview_server.link import MAX_BLOB_BYTES
from manyview_server.store.shards import SNAPSHOT_DTYPE

MAX_IMAGES = MAX_BLOB_BYTES // SNAPSHOT_DTYPE.itemsize
DATASET_TOO_LARGE = "DATASET_TOO_LARGE"
HINT = "train on a smaller data set"


def words(num_images: int) -> str:
    """What is wrong with so many images."""
    return f"the data set has {num_images:,} images, and a train job takes at most {MAX_IMAGES:,}"


def check(num_images: int) -> None:
    """Raise FailedPrecondition where a trainer cannot be told of so many images."""
    if num_images > MAX_IMAGES:
        raise FailedPrecondition(DATASET_TOO_LARGE, f"{words(num_images)}: {HINT}")
