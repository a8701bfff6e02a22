"""Read the file of a stored image, and verify it."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from manyview_server.errors import DataLoss
from manyview_server.front.convert import dataset_messages
from manyview_server.store.images.shards import ShardReader, image_id_of
from manyview_server.store.records import FoundImage
from manyview_server.system import open_files

log = logging.getLogger(__name__)


def stored_bytes(directory: Path, image: FoundImage) -> bytes:
    """Return the file of an image. Raises DataLoss IMAGE_LOST or CHECKSUM_MISMATCH."""
    name = dataset_messages.image_id(image.record.image_id)
    reader = ShardReader(directory)
    try:
        data = reader.read(image.shard, image.offset, image.record.num_bytes)
    except (OSError, EOFError) as error:
        if open_files.are_lacking(error):
            raise
        log.error("an image cannot be read", exc_info=error)
        raise DataLoss("IMAGE_LOST", f"the server cannot read image {name} any more") from error
    finally:
        reader.close()
    if image_id_of(hashlib.sha256(data).digest()) != image.record.image_id:
        raise DataLoss("CHECKSUM_MISMATCH", f"the stored bytes of image {name} are not those that were sent")
    return data
