"""The decoded images of a job: one uint8 tensor that lies on the device, in memory, or in a scratch file.

Shapes: N images of the cache, S pixels on a side of it.

Every image is resampled to S x S whatever its shape. Its true size is kept beside it: crops are drawn in the true
geometry and mapped onto the square.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """An image without pixels, and the reason."""

    image_id: int
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class DarkImage:
    """An image of 16 bits per channel whose values are all small, such as 12 bits of a camera: it is nearly black."""

    image_id: int
    used_bits: int


@dataclass(frozen=True, kw_only=True)
class ImageCache:
    """The decoded images of a snapshot, row by row. The rows of unreadable images are zero."""

    storage: Tensor
    """(N or more, 3, S, S) uint8: it may have room for images that come later."""
    sizes: Tensor
    """(N, 2) int64, height and width before resampling. On the CPU, as are the next three."""
    image_ids: Tensor
    """(N,) int64."""
    labels: Tensor
    """(N,) int64, -1 for an image without a label."""
    readable: Tensor
    """(N,) bool."""
    location: str
    """"device", "memory" or "file"."""
    unreadable: tuple[Unreadable, ...] = field(repr=False)
    dark: tuple[DarkImage, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def num_classes(self) -> int:
        """Labels are numbered from 0 in the order in which they first appeared."""
        return int(self.labels.max()) + 1 if len(self.labels) else 0

    @property
    def device_bytes(self) -> int:
        """The memory of the device that the images take."""
        return self.storage.nbytes if self.location == "device" else 0

    @property
    def pixels(self) -> Tensor:
        """(N, 3, S, S) uint8."""
        return self.storage[: len(self)]

    def first(self, num_images: int) -> ImageCache:
        """Return the first rows alone, in the same memory."""
        ids = self.image_ids[:num_images]
        known = set(ids.tolist())
        return replace(
            self,
            sizes=self.sizes[:num_images],
            image_ids=ids,
            labels=self.labels[:num_images],
            readable=self.readable[:num_images],
            unreadable=tuple(image for image in self.unreadable if image.image_id in known),
            dark=tuple(image for image in self.dark if image.image_id in known),
        )
