"""The positive is another image: the nearest one among earlier keys.

Shapes: B batch, P projection, K bank slots, C bank slots of one chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from manyview_server.learn.losses.contrastive import check_pair
from manyview_server.learn.losses.normalize import unit

CHUNK_SLOTS = 8192
"""Bank slots at a time: (256, 8192) float32 similarities are 8 MiB."""


class Nearest(NamedTuple):
    """What `nearest_keys` finds for each query."""

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
    """The bank's key with the highest cosine, for each query (NNCLR, arXiv 2104.14548, equation 2).

    A query that has no other image's key to go to, as in the first step of a training, is its own neighbour.

    Differs from the paper: with ids, earlier keys of the query's own image are passed over. The paper's bank is small
    beside ImageNet; in a small data set they would be the nearest almost always, and teach nothing.

    Args:
        query: (B, P) projections of any length.
        bank_keys: (K, P) unit vectors, of any float type.
        num_valid: how many slots, the first ones, hold keys; an int or a 0-d integer tensor on the device.
        image_ids, bank_image_ids: (B,) and (K,) int64, both or neither.

    Raises:
        ValueError: shapes that do not fit, or one kind of ids without the other.
    """
    if query.ndim != 2 or bank_keys.ndim != 2 or bank_keys.shape[1] != query.shape[1]:
        raise ValueError(f"queries (B, P) and a bank (K, P), not {tuple(query.shape)} and {tuple(bank_keys.shape)}")
    if (image_ids is None) != (bank_image_ids is None):
        raise ValueError("image_ids and bank_image_ids go together")
    with torch.autocast(query.device.type, enabled=False):
        q = unit(query)
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


def nnclr(neighbours: Tensor, predictions: Tensor, temperature: float = 0.1) -> Tensor:
    """Each neighbour looks for the prediction of the view that it stands for (NNCLR, arXiv 2104.14548, equation 3).

    A training adds up both directions: neighbours of view 0 with predictions of view 1, and the other way round.

    Args:
        neighbours: (B, P), of `nearest_keys` for the projections of one view.
        predictions: (B, P) of the other view's projections, of any length; gradients reach both.
        temperature: T.

    Returns:
        0-d mean over the batch; 0 for B = 1, where there is nothing to tell apart.

    Raises:
        ValueError: shapes that differ or are not (B, P), or a temperature below 0.01.
    """
    check_pair(neighbours, predictions, temperature)
    with torch.autocast(predictions.device.type, enabled=False):
        logits = unit(neighbours) @ unit(predictions).T / temperature  # (B, B)
        return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
