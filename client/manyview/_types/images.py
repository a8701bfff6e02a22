"""Images as the server lists them, and why it refuses some."""

from __future__ import annotations

from dataclasses import dataclass

from manyview._types.words import ImageStatus


@dataclass(frozen=True, kw_only=True)
class ImageError:
    """The reason why an image was refused, in UPPER_SNAKE such as FORMAT_NOT_ALLOWED, and a message for people."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """An image of a data set. `error` says why an image is REJECTED or UNREADABLE."""

    image_id: str
    key: str
    label: str
    status: ImageStatus
    error: ImageError | None
    num_bytes: int
    width: int
    height: int
