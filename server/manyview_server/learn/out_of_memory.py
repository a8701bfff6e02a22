"""How torch and Python say that memory ran out."""

from __future__ import annotations

import torch

WORDS = (
    "can't allocate memory",  # torch's CPU allocator
    "CUDA error: out of memory",  # the driver: a context, pinned memory
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
)
"""Texts in the messages of allocators that raise a plain RuntimeError."""


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether it says that the device or the host has not as much memory as was asked for."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)
