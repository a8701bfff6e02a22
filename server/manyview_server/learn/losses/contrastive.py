"""Contrastive losses, as pure functions of projections.

Shapes: B batch, P projection, K bank slots, C bank slots of one chunk.

They compute in float32, or in the precision of their inputs if that is higher, inside autocast as well. None of them
waits for the device.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from manyview_server.learn.losses.bank_negatives import masked_sums, valid_sums
from manyview_server.learn.losses.temperature import SMALLEST_CONTRASTIVE_TEMPERATURE, check_temperature
from manyview_server.learn.normalize import unit_rows

SMALLEST_FLOAT32_TEMPERATURE = 0.03
"""Smallest T for which e^(-2/T) is a normal float32 number (2/T < 87). Below it `info_nce` computes in float64."""

CHUNK_SLOTS = 1024
"""Number of bank slots processed at a time: (256, 1024) float32 logits are 1 MiB and stay in a CPU core's cache."""


def nt_xent(z0: Tensor, z1: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy (SimCLR, arXiv 2002.05709, equation 1), symmetric in z0 and z1.

    Each of the 2B projections must find its partner among the 2B - 1 others.

    Args:
        z0, z1: (B, P) projections of two views of the same images, of any length; gradients reach both.
        temperature: T.

    Returns:
        0-d mean over the 2B projections; 0 for B = 1, which has no negatives.

    Raises:
        ValueError: shapes that differ or are not (B, P), or a temperature below 0.01.
    """
    check_pair(z0, z1, temperature)
    with torch.autocast(z0.device.type, enabled=False):
        z = unit_rows(torch.cat([z0, z1]))  # (2B, P)
        logits = (z @ z.T) / temperature  # (2B, 2B)
        logits.fill_diagonal_(-math.inf)
        B = len(z0)
        partner = torch.arange(2 * B, device=z.device).roll(B)
        return F.cross_entropy(logits, partner)


def dcl(z0: Tensor, z1: Tensor, temperature: float, *, weight_sigma: float | None = None) -> Tensor:
    """Decoupled contrastive loss (arXiv 2110.06848, equation 5): NT-Xent without the positive in the denominator.

    Args:
        z0, z1: (B, P) projections of two views of the same images, of any length; gradients reach both.
        temperature: T.
        weight_sigma: sigma of DCLW (equation 6), or None for DCL. Positives that are far apart weigh more: the weights
            are 2 - B softmax(z0 . z1 / sigma) over the batch, treated as constants.

    Returns:
        0-d mean over the 2B projections; 0 for B = 1, which has no negatives.

    Raises:
        ValueError: shapes that differ or are not (B, P), a temperature below 0.01, or a sigma that is not above 0.
    """
    check_pair(z0, z1, temperature)
    if weight_sigma is not None and not weight_sigma > 0:
        raise ValueError(f"weight_sigma must be above 0, not {weight_sigma}")
    with torch.autocast(z0.device.type, enabled=False):
        z0, z1 = unit_rows(z0), unit_rows(z1)
        positive = (z0 * z1).sum(1)  # (B,)
        if len(z0) == 1:
            return 0 * positive.sum()
        weight = 1.0 if weight_sigma is None else 2 - len(z0) * (positive.detach() / weight_sigma).softmax(0)
        z = torch.cat([z0, z1])
        B = len(z0)
        own = torch.eye(B, dtype=torch.bool, device=z.device).repeat(2, 2)  # a projection and its partner
        negatives = ((z @ z.T) / temperature).masked_fill(own, -math.inf).logsumexp(1)  # (2B,)
        return negatives.mean() - (weight * positive / temperature).mean()


def info_nce(
    query: Tensor,
    key: Tensor,
    bank_keys: Tensor,
    num_valid: Tensor | int,
    temperature: float,
    *,
    image_ids: Tensor | None = None,
    bank_image_ids: Tensor | None = None,
) -> Tensor:
    """InfoNCE with the negatives of a memory bank (MoCo, arXiv 1911.05722, equation 1).

    Each query must find its own key among that key and the bank's keys. The bank is read chunk by chunk and the
    gradient is computed on the way, so that neither (B, K) logits nor a copy of the bank is ever kept.
    benchmarks/losses compares it with cross-entropy over the logits.

    On a CPU, the factors of both products are bfloat16 if the queries are. Their sums are float32, as is everything
    else. That halves the time; the queries were rounded already, and the loss stays within 1e-3 of that in float32
    (tested for temperatures from 0.05 to 1).

    Differs from the paper: slots that were never filled, and earlier keys of the query's own image, are not negatives.

    Args:
        query, key: (B, P) projections of any length; gradients reach both (detach the key of a teacher).
        bank_keys: (K, P) unit vectors, of any float type, treated as constants.
        num_valid: number of slots at the start of the bank that hold keys; an int or a 0-d integer tensor on the
            device.
        temperature: T.
        image_ids, bank_image_ids: (B,) and (K,) int64, both or neither; keys with the id of the query are masked.

    Returns:
        0-d mean over the queries; 0 with an empty bank.

    Raises:
        ValueError: shapes that do not fit, only one kind of ids, or a temperature below 0.01.
    """
    check_pair(query, key, temperature)
    if bank_keys.ndim != 2 or bank_keys.shape[1] != query.shape[1]:
        raise ValueError(f"the bank must be (K, {query.shape[1]}), not {tuple(bank_keys.shape)}")
    if (image_ids is None) != (bank_image_ids is None):
        raise ValueError("give both image_ids and bank_image_ids, or neither")
    with torch.autocast(query.device.type, enabled=False):
        q, k = unit_rows(query), unit_rows(key)
        factors = query.dtype if query.dtype == torch.bfloat16 else q.dtype
        if temperature < SMALLEST_FLOAT32_TEMPERATURE:
            q, k = q.double(), k.double()
            factors = q.dtype
        ids = image_ids, bank_image_ids
        loss: Tensor = _BankCrossEntropy.apply(q, k, bank_keys, num_valid, temperature, *ids, factors)
        return loss.to(torch.promote_types(query.dtype, torch.float32))


class _BankCrossEntropy(torch.autograd.Function):
    """loss = log(e^(q.k/T) + Z) - q.k/T with Z = sum over valid slots of e^(q.bank/T). Forward computes the gradient.

    With p+ = e^(q.k/T) / (e^(q.k/T) + Z) and o = sum e^(q.bank/T) bank / (e^(q.k/T) + Z), per query:
    dloss/dq = ((p+ - 1) k + o) / T, dloss/dk = (p+ - 1) q / T. All exponents are shifted by 1/T, the largest that
    unit vectors allow, so that no running maximum is needed.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        bank_keys: Tensor,
        num_valid: Tensor | int,
        temperature: float,
        image_ids: Tensor | None,
        bank_image_ids: Tensor | None,
        factors: torch.dtype,
    ) -> Tensor:
        T = temperature
        positive = (q * k).sum(1)  # (B,)
        e_positive = torch.exp((positive - 1) / T)
        negatives = (bank_keys, num_valid, T, image_ids, bank_image_ids, CHUNK_SLOTS)
        sums = valid_sums(q, *negatives, factors) if q.device.type == "cpu" else masked_sums(q, *negatives)
        total, weighted = e_positive + sums.total, sums.weighted
        pull = (e_positive / total - 1)[:, None]  # (B, 1), p+ - 1
        scale = 1 / (T * len(q))
        ctx.save_for_backward((pull * k + weighted / total[:, None]) * scale, pull * q * scale)
        return (total.log() - (positive - 1) / T).mean()

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        grad_q, grad_k = ctx.saved_tensors
        return grad_loss * grad_q, grad_loss * grad_k, None, None, None, None, None, None


def check_pair(z0: Tensor, z1: Tensor, temperature: float) -> None:
    """Raise ValueError unless both are (B, P) and the temperature is large enough for this module."""
    if z0.ndim != 2 or z0.shape != z1.shape or len(z0) == 0:
        raise ValueError(f"both projections must be (B, P), not {tuple(z0.shape)} and {tuple(z1.shape)}")
    check_temperature(temperature, SMALLEST_CONTRASTIVE_TEMPERATURE)
