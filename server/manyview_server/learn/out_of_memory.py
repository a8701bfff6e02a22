"""Recognise the errors by which torch and Python report that memory ran out."""

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


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that the device or the host ran out of memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)
