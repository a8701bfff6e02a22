"""The positive of a view is another image: the nearest one among earlier keys.

Shapes: B batch, P projection, K bank slots, C bank slots of one chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from manyview_server.learn.losses.contrastive import check_pair
from manyview_server.learn.normalize import unit_rows

CHUNK_SLOTS = 8192
"""Number of bank slots processed at a time: (256, 8192) float32 similarities are 8 MiB."""


class Nearest(NamedTuple):
    """The result of `nearest_keys`: the nearest key of each query."""

    keys: Tensor
    """(B, P) unit vectors, without a graph."""
    similarity: Tensor
    """(B,) cosines to the query."""


@torch.no_grad()
def nearest_keys(
    query: Tensor,
    bank_keys: Tensor,
    num_valid: Tensor | int,
    *,
    image_ids: Tensor | None = None,
    bank_image_ids: Tensor | None = None,
) -> Nearest:
    """Find the bank's key with the highest cosine for each query (NNCLR, arXiv 2104.14548, equation 2).

    If the bank holds no key of another image, as in the first step of a training, the query is its own neighbor.

    Differs from the paper: with ids, earlier keys of the query's own image are skipped. The paper's bank is small
    compared with ImageNet. In a small data set these keys would nearly always be the nearest, and teach nothing.

    Args:
        query: (B, P) projections of any length.
        bank_keys: (K, P) unit vectors, of any float type.
        num_valid: number of slots at the start of the bank that hold keys; an int or a 0-d integer tensor on the
            device.
        image_ids, bank_image_ids: (B,) and (K,) int64, both or neither.

    Raises:
        ValueError: shapes that do not fit, or only one kind of ids.
    """
    if query.ndim != 2 or bank_keys.ndim != 2 or bank_keys.shape[1] != query.shape[1]:
        raise ValueError(
            f"queries must be (B, P) and the bank (K, P), not {tuple(query.shape)} and {tuple(bank_keys.shape)}"
        )
    if (image_ids is None) != (bank_image_ids is None):
        raise ValueError("give both image_ids and bank_image_ids, or neither")
    with torch.autocast(query.device.type, enabled=False):
        q = unit_rows(query)
        best = q.new_full((len(q),), -torch.inf)
        slot = torch.zeros_like(best, dtype=torch.int64)
        slots = torch.arange(len(bank_keys), device=q.device)
        for start in range(0, len(bank_keys), CHUNK_SLOTS):
            chunk = slice(start, start + CHUNK_SLOTS)
            similarity = q @ bank_keys[chunk].to(q.dtype).T  # (B, C)
            similarity.masked_fill_(slots[chunk] >= num_valid, -torch.inf)
            if image_ids is not None and bank_image_ids is not None:
                similarity.masked_fill_(image_ids[:, None] == bank_image_ids[chunk], -torch.inf)
            nearest, at = similarity.max(1)
            slot = torch.where(nearest > best, at + start, slot)
            best = torch.maximum(best, nearest)
        found = best > -torch.inf
        keys = bank_keys[slot].to(q.dtype) if len(bank_keys) else q
        own = q.square().sum(1)  # 1, or 0 for a row of zeros
        return Nearest(torch.where(found[:, None], keys, q), torch.where(found, best, own))


def nnclr(neighbors: Tensor, predictions: Tensor, temperature: float = 0.1) -> Tensor:
    """Each neighbor must find the prediction that belongs to its view (NNCLR, arXiv 2104.14548, equation 3).

    A training adds up both directions: neighbors of view 0 with predictions of view 1, and the other way round.

    Args:
        neighbors: (B, P), from `nearest_keys` for the projections of one view.
        predictions: (B, P), from the other view's projections, of any length; gradients reach both.
        temperature: T.

    Returns:
        0-d mean over the batch; 0 for B = 1, which has no negatives.

    Raises:
        ValueError: shapes that differ or are not (B, P), or a temperature below 0.01.
    """
    check_pair(neighbors, predictions, temperature)
    with torch.autocast(predictions.device.type, enabled=False):
        logits = unit_rows(neighbors) @ unit_rows(predictions).T / temperature  # (B, B)
        return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
