"""Read the images of a data set from its shards: the bytes that were sent, or a reason why not."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping
from typing import Any

from manyview_server.link.decode_notes import QUARANTINE
from manyview_server.store.images.shards import ShardReader, image_id_of
from manyview_server.worker.images.decoder import DecodeError

TEMPORARY_ERRNOS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN}
"""The errors of reading a file that say nothing about the file itself."""

NOTHING: Mapping[int, str] = {}


def read(reader: ShardReader, row: Any, quarantined: Mapping[int, str] = NOTHING) -> bytes:
    """Return the file of the image in `row`, an element of an array of `store.images.shards.SNAPSHOT_DTYPE`.

    Args:
        quarantined: images that must not be decoded, each with one of the reasons of `QUARANTINE`.

    Raises:
        DecodeError: IMAGE_LOST, CHECKSUM_MISMATCH, or the reason for which the image is quarantined.
        OSError: the file cannot be read now, for example because no descriptor is free. The image may be intact.
    """
    image_id = int(row["image_id"])
    if image_id in quarantined:
        reason = quarantined[image_id]
        raise DecodeError(reason, QUARANTINE[reason])
    try:
        data = reader.read(int(row["shard"]), int(row["offset"]), int(row["length"]))
    except (OSError, EOFError) as error:
        if isinstance(error, OSError) and error.errno in TEMPORARY_ERRNOS:
            raise
        raise DecodeError("IMAGE_LOST", f"the server can no longer read it from shard {row['shard']}") from error
    if image_id_of(hashlib.sha256(data).digest()) != image_id:
        raise DecodeError("CHECKSUM_MISMATCH", "the stored bytes are not those that were sent")
    return data
