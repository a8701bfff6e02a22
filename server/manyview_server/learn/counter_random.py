"""Random numbers as a pure function of their purpose: no generator, no state, no order in which they are drawn.

An integer hash (the mixer of SplitMix64, Steele et al., OOPSLA 2014) gives every image its own numbers in each epoch.
Any of them can be drawn again, whatever the batch, the number of threads or the numbers drawn before. The arithmetic
uses only integers and exactly rounded operations, so the numbers are equal on every device, bit for bit.

Shapes: V views, B images, K numbers drawn for each, N images of a data set.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def uniforms(
    image_ids: Tensor,
    *,
    seed: int,
    epoch: int,
    num_draws: int,
    views: range = range(1),
    stream: str | None = None,
) -> Tensor:
    """Return (V, B, K) float64 in [0, 1), each a hash of (seed, epoch, id, stream if given, view, number).

    Args:
        image_ids: (B,) int64; the numbers are on their device.
        num_draws: K; a larger K gives the same numbers first.
        views: which of an image's views.
        stream: a name; its numbers are independent of those of any other stream.
    """
    device = image_ids.device
    state = _mix(torch.tensor(seed, dtype=torch.int64) + _GOLDEN)
    state = _absorbed(state, torch.tensor(epoch, dtype=torch.int64))  # on the CPU: a copy would wait for the device
    state = _absorbed(state, image_ids.long())  # (B,)
    if stream is not None:
        named = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little", signed=True)
        state = _absorbed(state, torch.tensor(named, dtype=torch.int64))
    view = torch.arange(views.start + 1, views.stop + 1, device=device)[:, None]
    number = torch.arange(1, num_draws + 1, device=device)
    bits = _mix(_mix(state + view * _GOLDEN)[..., None] + number * _GOLDEN)
    return _shift_right(bits, 11).double() * 2.0**-53


def order(image_ids: Tensor, *, seed: int, epoch: int) -> Tensor:
    """Return (N,) int64, a permutation of the rows of `image_ids` (N,): sorted by a hash of (seed, epoch, id).

    The order of two images does not depend on the other images, nor on their rows.
    """
    state = _mix(torch.tensor(seed + 1, dtype=torch.int64))
    state = _mix(state ^ epoch)
    return (_mix(image_ids ^ state) ^ _SIGN).argsort(stable=True)  # as unsigned integers


def _absorbed(state: Tensor, part: Tensor) -> Tensor:
    """Return the hash of one more part. The order of parts counts: the factor keeps (1, 2) apart from (2, 1)."""
    return _mix(state * _GOLDEN ^ _mix(part + _GOLDEN))


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's mixer, a bijection of 64-bit integers; products wrap around."""
    x = (x ^ _shift_right(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift_right(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Shift logically: torch's shift of signed integers would repeat the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >= 1 << 63 else x


_GOLDEN = _signed(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: SplitMix64's step
_SIGN = _signed(1 << 63)
