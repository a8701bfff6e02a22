"""How torch and Python say that memory ran out."""

from __future__ import annotations

import torch

CPU_ALLOCATOR_WORDS = "can't allocate memory"
"""Of torch's CPU allocator, which raises a plain RuntimeError."""


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether it says that the device or the host has not as much memory as was asked for."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and CPU_ALLOCATOR_WORDS in str(error)
