"""A batch of an upload, and the digest that chains the images of an upload."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from manyview_server.store.records import CheckedImage, RejectedImage

Checked = CheckedImage | RejectedImage


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadBatch:
    """A batch that waits to be committed.

    `session` is the fence of its session: only the newest of an upload may write.
    """

    upload: int
    session: asyncio.Event
    number: int
    images: Sequence[Checked] = field(repr=False)

    @property
    def num_bytes(self) -> int:
        """The size of its images in bytes."""
        return sum(len(image.data) for image in self.images if isinstance(image, CheckedImage))


def chain(digest: bytes, images: Sequence[Checked]) -> bytes:
    """Return the digest of an upload after these images.

    Each image adds SHA-256(previous digest + SHA-256 of the image).
    """
    for image in images:
        digest = hashlib.sha256(digest + image.sha256).digest()
    return digest
