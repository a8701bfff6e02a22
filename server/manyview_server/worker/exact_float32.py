"""What float32 means in a worker: products of float32 numbers are computed in float32, on every device.

On GPUs torch would round the factors of convolutions to TF32 (10 bits of mantissa) and keep those of matrix products.
Then `precision: float32` would mean two things in one network, and another thing than on a CPU. Whoever wants speed has
bfloat16, which `precision: auto` measures.
"""

from __future__ import annotations

import torch


def compute_float32_exactly() -> None:
    """Switch TF32 off for this process. It needs no GPU, and nothing else in a worker sets these switches."""
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = "ieee"  # type: ignore[attr-defined]
