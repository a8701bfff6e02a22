"""Sums over the keys of a memory bank, chunk by chunk: (B, K) logits are never kept.

Shapes: B batch, P projection, K bank slots, C bank slots of one chunk, N pairs of a query and a slot.

A GPU must not wait for the host, so `masked_sums` reads all slots and masks some. On a CPU nothing waits, so
`valid_sums` reads only slots that hold keys, and masks the few pairs of one image by their places.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class BankSums(NamedTuple):
    """Sums over the slots that are negatives. All exponents are shifted by 1/T, the largest that unit vectors allow."""

    total: Tensor
    """(B,) sum e^((q.bank - 1)/T)."""
    weighted: Tensor
    """(B, P) sum e^((q.bank - 1)/T) bank."""


def masked_sums(
    q: Tensor,
    bank_keys: Tensor,
    num_valid: Tensor | int,
    temperature: float,
    image_ids: Tensor | None,
    bank_image_ids: Tensor | None,
    chunk_slots: int,
) -> BankSums:
    """Return the sums without waiting for the device.

    Args:
        q: (B, P) unit vectors.
        bank_keys: (K, P) unit vectors.
        num_valid: number of slots at the start of the bank that are negatives.
        image_ids, bank_image_ids: (B,) and (K,), both or neither; slots with the id of the query are no negatives.
        chunk_slots: C.
    """
    T = temperature
    total, weighted = q.new_zeros(len(q)), torch.zeros_like(q)
    slots = torch.arange(len(bank_keys), device=q.device)
    for start in range(0, len(bank_keys), chunk_slots):
        chunk = slice(start, start + chunk_slots)
        keys = bank_keys[chunk].to(q.dtype)  # (C, P)
        e = torch.addmm(q.new_full((), -1 / T), q, keys.T, alpha=1 / T).exp_()  # (B, C)
        e *= slots[chunk] < num_valid
        if image_ids is not None and bank_image_ids is not None:
            e.masked_fill_(image_ids[:, None] == bank_image_ids[chunk], 0)
        total += e.sum(1)
        weighted.addmm_(e, keys)
    return BankSums(total, weighted)


def valid_sums(
    q: Tensor,
    bank_keys: Tensor,
    num_valid: Tensor | int,
    temperature: float,
    image_ids: Tensor | None,
    bank_image_ids: Tensor | None,
    chunk_slots: int,
    factors: torch.dtype,
) -> BankSums:
    """Return the sums, on a CPU.

    Powers of 2 take a third of the time of powers of e. They are shifted at the end, since a shift of each logit would
    take another pass. They stay in the range of `q`'s type because 2^(log2(e)/T) K does.

    Args:
        factors: type of the factors of both products. With bfloat16 they take half the time; the products are summed
            in float32 and rounded to bfloat16, and everything else is computed in the type of `q`.

    All other arguments are those of `masked_sums`.
    """
    num_slots = min(int(num_valid if isinstance(num_valid, int) else num_valid.numpy()), len(bank_keys))
    total, weighted = q.new_zeros(len(q)), torch.zeros_like(q)
    scaled = (q * (math.log2(math.e) / temperature)).to(factors)
    room = q.new_empty(len(q) * min(chunk_slots, num_slots))
    own = None
    if image_ids is not None and bank_image_ids is not None:
        own = _pairs_of_one_image(image_ids.numpy(), bank_image_ids[:num_slots].numpy())
    for start in range(0, num_slots, chunk_slots):
        stop = min(start + chunk_slots, num_slots)
        keys = bank_keys[start:stop].to(factors)  # (C, P)
        e = room[: len(q) * len(keys)].view(len(q), -1)  # (B, C)
        if factors == q.dtype:
            torch.mm(scaled, keys.T, out=e)
        else:
            e.copy_(torch.mm(scaled, keys.T))
        e.exp2_()
        if own is not None:
            first, last = np.searchsorted(own.slots, (start, stop))
            places = own.queries[first:last] * len(keys) + (own.slots[first:last] - start)
            e.view(-1).index_fill_(0, torch.from_numpy(places), 0)
        total += e.sum(1)
        if factors == q.dtype:
            weighted.addmm_(e, keys)
        else:
            weighted += torch.mm(e.to(factors), keys)
    shift = math.exp(-1 / temperature)
    return BankSums(total * shift, weighted * shift)


class _Pairs(NamedTuple):
    queries: NDArray[np.int64]  # (N,)
    slots: NDArray[np.int64]  # (N,), in rising order


def _pairs_of_one_image(image_ids: NDArray[np.int64], bank_image_ids: NDArray[np.int64]) -> _Pairs:
    """Return the pairs of a query and a slot with equal ids; both may hold an id several times."""
    order = np.argsort(image_ids)
    in_order = image_ids[order]
    first = np.searchsorted(in_order, bank_image_ids)
    slots = np.flatnonzero(in_order.take(first, mode="clip") == bank_image_ids)
    first = first[slots]
    count = np.searchsorted(in_order, bank_image_ids[slots], side="right") - first
    nth = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
    return _Pairs(order[np.repeat(first, count) + nth], np.repeat(slots, count))
