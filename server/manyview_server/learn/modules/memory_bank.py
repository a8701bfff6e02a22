"""The memory bank: a ring of keys from earlier batches, which serve as negatives for the next ones.

Shapes: B batch, P projection, K bank slots.

This is the queue of MoCo (arXiv 1911.05722, section 3.1) with three differences. A batch that does not fit before the
end of the ring continues at its start. Each key is stored with its image's id, so that an image is not pushed away from
itself. The number of filled slots is kept, so that slots that were never filled are not negatives.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Settings = TypeVar("Settings", bound=Any)

LARGEST_DEFAULT_SIZE = 4096
"""The usual size for data sets of 50,000 images (lightly's examples and CIFAR-10 benchmark)."""


class MemoryBank(nn.Module):
    """A ring of K unit keys. All of its state is in persistent buffers, and nothing in it waits for the device."""

    keys: Tensor  # (K, P)
    image_ids: Tensor  # (K,) int64, -1 in slots that were never filled
    pointer: Tensor  # 0-d int64, the next slot to be written
    filled: Tensor  # 0-d int64, the first `filled` slots hold keys

    def __init__(self, size: int, dim: int, dtype: torch.dtype = torch.float32) -> None:
        """
        Args:
            size: K, at least 1.
            dim: P.
            dtype: type of the stored keys, float32 or bfloat16.

        Raises:
            ValueError: a size or dim below 1, or a type that is not a float type.
        """
        super().__init__()
        if size < 1 or dim < 1:
            raise ValueError(f"a memory bank needs at least one slot and one dimension, not {size} x {dim}")
        if not dtype.is_floating_point:
            raise ValueError(f"keys are stored as floats, not as {dtype}")
        self.register_buffer("keys", torch.zeros(size, dim, dtype=dtype))
        self.register_buffer("image_ids", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @property
    def size(self) -> int:
        return len(self.keys)

    @torch.no_grad()
    def enqueue(self, keys: Tensor, image_ids: Tensor, accept: Tensor | None = None) -> None:
        """Overwrite the oldest slots with the rows of a batch. If the batch is larger than the bank, its last K rows
        stay.

        Call this after the loss of the batch: keys of the current batch are not negatives.

        Args:
            keys: (B, P), unit vectors.
            image_ids: (B,) int64, not negative.
            accept: 0-d bool on the device. If it is false, the bank stays as it is, bit for bit.
        """
        num_new = len(keys)
        keys, image_ids = keys[-self.size :], image_ids[-self.size :]
        first = self.pointer + (num_new - len(keys))
        slots = (first + torch.arange(len(keys), device=keys.device)) % self.size
        keys = keys.to(self.keys.dtype)
        advance = torch.full_like(self.pointer, num_new)
        if accept is not None:
            keys = torch.where(accept, keys, self.keys[slots])
            image_ids = torch.where(accept, image_ids, self.image_ids[slots])
            advance = torch.where(accept, advance, 0)
        self.keys.index_copy_(0, slots, keys)
        self.image_ids.index_copy_(0, slots, image_ids)
        self.pointer.add_(advance).remainder_(self.size)
        self.filled.add_(advance).clamp_(max=self.size)


def default_size(num_images: int, batch_size: int) -> int:
    """Return the number of slots for a data set: a twentieth of its images, at most 4096, in whole batches, at least
    one batch.

    An epoch passes `num_images` keys through the bank. A bank of that size would hold every image's own key, and
    negatives that are an epoch old and come from another network. Fresh negatives teach more than many: with 10,000
    CIFAR-10 images (16 px, MoCo, 600 steps of 64) kNN is 37.1 % with a bank of 256 and 35.2 % with one of 2048.
    """
    target = min(LARGEST_DEFAULT_SIZE, num_images // 20)
    return max(1, target // batch_size) * batch_size


def choose_bank_size(settings: Settings, num_images: int) -> Settings:
    """Return `settings` of a method with a bank; choose the size by `default_size` if it was left open."""
    if settings.memory_bank_size is not None:
        return settings
    return dataclasses.replace(settings, memory_bank_size=default_size(num_images, settings.batch_size))
