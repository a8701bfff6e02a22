"""One image, ready to be sent."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from manyview._types import ImageError


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
