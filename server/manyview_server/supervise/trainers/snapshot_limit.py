"""The most images of a train job: the snapshot of its data set travels to the trainer in one message."""

from __future__ import annotations

from manyview_server.counted_noun import number_of
from manyview_server.errors import FailedPrecondition
from manyview_server.link.frames import MAX_BLOB_BYTES
from manyview_server.store.images.shards import SNAPSHOT_DTYPE

MAX_IMAGES = MAX_BLOB_BYTES // SNAPSHOT_DTYPE.itemsize
DATASET_TOO_LARGE = "DATASET_TOO_LARGE"
HINT = "train on a smaller data set"


def too_many(num_images: int) -> str:
    """Return a clause that says that there are too many images, for a message."""
    return f"the data set has {number_of(num_images, 'image')}, and a train job takes at most {MAX_IMAGES:,}"


def check(num_images: int) -> None:
    """Raise FailedPrecondition if a train job cannot have this many images."""
    if num_images > MAX_IMAGES:
        raise FailedPrecondition(DATASET_TOO_LARGE, f"{too_many(num_images)}: {HINT}")
