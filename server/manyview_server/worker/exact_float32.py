"""Compute products of float32 numbers in float32, on every device of a worker.

By default, torch rounds the factors of convolutions to TF32 (10 bits of mantissa) on GPUs, but not those of matrix
products. Then `precision: float32` would mean two things in one network, and differ from a CPU. For more speed there is
bfloat16, which `precision: auto` measures.
"""

from __future__ import annotations

import torch


def compute_float32_exactly() -> None:
    """Switch TF32 off for this process. This needs no GPU, and nothing else in a worker changes these switches."""
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = "ieee"  # type: ignore[attr-defined]
