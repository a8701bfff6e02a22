"""One image, ready to be sent, and the reading of files."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from manyview._types.images import ImageError


@dataclass(frozen=True)
class EncodedImage:
    """One image, ready to be sent. If `error` is set, the image is not sent, and `data` is empty. `is_recompressed` is
    true if the pixels that the caller gave were too large and travel as JPEG or WebP."""

    key: str
    data: bytes
    label: str = ""
    error: ImageError | None = None
    is_recompressed: bool = False

    @cached_property
    def sha256(self) -> bytes:
        return hashlib.sha256(self.data).digest()


def read_file(path: Path, key: str, label: str, limit: int) -> EncodedImage:
    """Return the image in a file. If the file is larger than `limit` or cannot be read, the image has an error."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return EncodedImage(key, b"", label, ImageError(reason="UNREADABLE_FILE", message="it is not a file"))
        if status.st_size > limit:
            return too_large(key, label, status.st_size, limit)
        return EncodedImage(key, path.read_bytes(), label)
    except OSError as error:
        return EncodedImage(key, b"", label, unreadable(error))


def too_large(key: str, label: str, num_bytes: int, limit: int) -> EncodedImage:
    """Return an image that is not sent because it is too large."""
    message = f"it has {num_bytes:,} bytes, at most {limit:,} are allowed"
    return EncodedImage(key, b"", label, ImageError(reason="IMAGE_TOO_LARGE", message=message))


def unreadable(error: OSError) -> ImageError:
    """Return the error of a file that the operating system refused to read."""
    return ImageError(reason="UNREADABLE_FILE", message=readable_text(error.strerror or str(error)))


def readable_text(name: str) -> str:
    """Return a file's name as text that can be sent and printed. Names are bytes, and need not be UTF-8."""
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
