"""Decoded pixels that are kept: on the device while they fit, then in memory, until there is no room.

Shapes: N images of the job, B images of a batch, S pixels on a side of a decoded image.

Rows are kept in the order in which they come, and stay. The pixels lie in a few blocks, and growing adds one or two, so
that no image moves. Memory of the CPU in which no image lies yet takes no room: the system gives it out page by page.
On a CPU the layout is channels_last, in which images are decoded and cropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyview_server.messages.training import NO_LIMIT
from manyview_server.system.host_memory import IMAGES_FRACTION, host_memory

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of memory for images. `first` is the number of its first slot."""

    first: int
    pixels: Tensor
    """(n, 3, S, S) uint8."""
    on_device: bool

    @property
    def end(self) -> int:
        """The number of the slot after its last one."""
        return self.first + len(self.pixels)


def picked(images: Tensor, index: Tensor) -> Tensor:
    """Return some of the images (B, 3, S, S), in the same layout. torch alone would return channels_last as another."""
    if images.is_contiguous() or not images.is_contiguous(memory_format=torch.channels_last):
        return images.index_select(0, index)
    return images.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)


class PixelStore:
    """Pixels of some of the rows 0 to N - 1. One thread at a time may use it."""

    def __init__(
        self, size: int, device: torch.device, cache_bytes: int, num_rows: int = 0, most_bytes: int = NO_LIMIT
    ) -> None:
        """
        Args:
            size: S.
            device: where `take` returns pixels.
            cache_bytes: the most bytes that may be kept on the device.
            num_rows: N, which `grow` raises.
            most_bytes: the most bytes that may be kept on the device and in memory together.
        """
        self.size = size
        self.device = device
        self.layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
        """The layout of the pixels."""
        self.num_kept = 0
        """The rows that are kept now."""
        self._cache_bytes = cache_bytes
        self._most_bytes = most_bytes
        self._slots: npt.NDArray[np.int32] = np.empty(0, dtype=np.int32)  # by row; -1 for a row that is not kept
        self._blocks: list[Block] = []
        self.grow(num_rows)

    @property
    def image_bytes(self) -> int:
        """The bytes of one image."""
        return 3 * self.size * self.size

    @property
    def capacity(self) -> int:
        """The most rows for which there is room."""
        return self._blocks[-1].end if self._blocks else 0

    @property
    def device_capacity(self) -> int:
        """The most rows for which there is room on the device."""
        return sum(len(block.pixels) for block in self._blocks if block.on_device)

    def grow(self, num_rows: int) -> None:
        """Make the rows up to `num_rows` known, and add room for them while there is memory.

        The room is at least doubled, so that a batch of a data set that grows lies in few blocks. Memory in which no
        image lies is address space alone, and all limits hold for it as if it were full.
        """
        added = num_rows - len(self._slots)
        self._slots = np.concatenate([self._slots, np.full(added, -1, dtype=np.int32)])
        if num_rows > self.capacity:
            wanted = max(num_rows - self.capacity, self.capacity)
            wanted -= self._add_block(wanted, self._room_on_device(), on_device=True)
            if self.device.type != "cpu":
                self._add_block(wanted, self._room_in_memory(), on_device=False)

    def is_kept(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Return which of `rows` (B,) are kept."""
        return self._slots[rows] >= 0

    def take(self, rows: Rows) -> Tensor:
        """Return the pixels (B, 3, S, S) of `rows`, all of which must be kept, on the device."""
        slots: Rows = self._slots[rows].astype(np.int64)
        assert (slots >= 0).all()
        parts = [(block, np.flatnonzero((slots >= block.first) & (slots < block.end))) for block in self._blocks]
        parts = [(block, at) for block, at in parts if len(at)]
        if len(parts) == 1:
            return self._picked(parts[0][0], slots)
        shape = (len(rows), 3, self.size, self.size)
        images = torch.empty(shape, dtype=torch.uint8, device=self.device, memory_format=self.layout)
        for block, at in parts:
            images.index_copy_(0, self._moved(at), self._picked(block, slots[at]))
        return images

    def keep(self, rows: Rows, at: Rows, images: Tensor, on_host: Tensor) -> None:
        """Keep `images[at[i]]` as the pixels of `rows[i]`, while there is room and unless they are kept already.

        Args:
            rows, at: (n,) rows, and their places in the images.
            images: (B, 3, S, S) uint8 on the device.
            on_host: the same in memory; on the CPU the same tensor.
        """
        _, first = np.unique(rows, return_index=True)  # a row may come twice
        fresh = np.sort(first)
        fresh = fresh[self._slots[rows[fresh]] < 0]
        for block in self._blocks:
            chosen, fresh = np.split(fresh, [max(0, min(len(fresh), block.end - self.num_kept))])
            if len(chosen):
                start = self.num_kept - block.first
                if block.on_device:
                    pixels = picked(images, self._moved(at[chosen]))
                else:
                    pixels = on_host.index_select(0, torch.from_numpy(at[chosen]))
                block.pixels[start : start + len(chosen)].copy_(pixels)
                self._slots[rows[chosen]] = np.arange(self.num_kept, self.num_kept + len(chosen))
                self.num_kept += len(chosen)

    def _add_block(self, num_images: int, room_bytes: int, *, on_device: bool) -> int:
        """Add room for as many images as the bytes hold, `num_images` at most. Return how many that are."""
        room_bytes = min(room_bytes, self._most_bytes - self.capacity * self.image_bytes)
        num_images = min(num_images, room_bytes // self.image_bytes)
        if num_images <= 0:
            return 0
        shape = (num_images, 3, self.size, self.size)
        device = self.device if on_device else "cpu"
        pixels = torch.empty(shape, dtype=torch.uint8, device=device, memory_format=self.layout)
        self._blocks.append(Block(self.capacity, pixels, on_device))
        return num_images

    def _picked(self, block: Block, slots: Rows) -> Tensor:
        """Return the images in some slots of a block, on the device."""
        inside = slots - block.first
        if block.on_device:
            return picked(block.pixels, self._moved(inside))
        # The device copies pinned memory by itself after the earlier steps, so no thread waits for it.
        images = block.pixels.index_select(0, torch.from_numpy(inside))
        return images.pin_memory().to(self.device, non_blocking=True)

    def _moved(self, index: Rows) -> Tensor:
        return torch.from_numpy(index).to(self.device, non_blocking=True)

    def _room_on_device(self) -> int:
        left = self._cache_bytes - self.device_capacity * self.image_bytes
        return min(left, self._room_in_memory()) if self.device.type == "cpu" else left

    def _room_in_memory(self) -> int:
        """Return how many bytes another block in memory may have.

        All blocks together take at most a share of what would be available without them. Slots that are still empty
        have taken nothing of it yet, but count.
        """
        blocks = [block for block in self._blocks if self.device.type == "cpu" or not block.on_device]
        held = sum(len(block.pixels) for block in blocks) * self.image_bytes
        filled = sum(min(len(block.pixels), max(0, self.num_kept - block.first)) for block in blocks) * self.image_bytes
        return int(IMAGES_FRACTION * (host_memory().available_bytes + filled)) - held
