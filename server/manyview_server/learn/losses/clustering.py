"""Views agree on a cluster: each predicts the other's soft assignment to prototypes.

Shapes: G global views, L local views, B batch, Q queue rows, K prototypes, N rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manyview_server.learn.losses.soft_targets import swapped_cross_entropy
from manyview_server.learn.losses.temperature import check_temperature
from manyview_server.learn.normalize import at_least_float32


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float = 0.05, iterations: int = 3, valid: Tensor | None = None) -> Tensor:
    """Soft assignments that use all prototypes equally (SwAV, arXiv 2006.09882, equation 3 and listing A.1).

    Each round divides by the sums over the rows, for each prototype, and then by the sums over the prototypes, for each
    row. The first round works on logarithms. From then on each row holds at least 1 / K and each prototype at least
    1 / (N K), so that no score, however large, leads to a division by zero.

    Args:
        scores: (N, K), of any float type; computed in float32 at least.
        epsilon: softness of the assignments. A smaller one moves each row nearer to a single prototype.
        valid: (N,) bool; rows where it is false take no part, and their assignments are zeros.

    Returns:
        (N, K), rows that sum to 1, without a graph.

    Raises:
        ValueError: scores that are not (N, K), or an epsilon or a number of iterations that is too small.
    """
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"scores must be (N, K), not {tuple(scores.shape)}")
    check_temperature(epsilon, name="epsilon")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, not {iterations}")
    unused = None if valid is None else ~valid[:, None]
    with torch.autocast(scores.device.type, enabled=False):
        logits = at_least_float32(scores) / epsilon
        if unused is not None:
            logits = logits.masked_fill(unused, -torch.inf)
        q = (logits - logits.logsumexp(0)).softmax(1)
        if unused is not None:
            q = q.masked_fill(unused, 0)
        tiny = torch.finfo(q.dtype).tiny  # rows that take no part remain zeros
        for _ in range(iterations - 1):
            q /= q.sum(0).clamp_min(tiny)
            q /= q.sum(1, keepdim=True).clamp_min(tiny)
        return q


def swav(
    global_scores: Tensor,
    local_scores: Tensor | None = None,
    *,
    queue_scores: Tensor | None = None,
    num_valid: Tensor | int | None = None,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
) -> Tensor:
    """Swapped prediction (SwAV, arXiv 2006.09882, equations 1 and 2, with the local views of section 3.2).

    Every view predicts the assignment of each global view except itself. Assignments come from `sinkhorn` and are
    treated as constants.

    Args:
        global_scores: (G, B, K) cosines between projections and prototypes, the views of an image in the same row.
        local_scores: (L, B, K); local views predict, but are not assigned.
        queue_scores: (G, Q, K) scores of earlier batches' projections, one queue for each global view. They take part
            only in the assignment, so that small batches fill all prototypes.
        num_valid: number of rows at the start of each queue that hold projections; an int, or a 0-d integer tensor on
            the device. None means all.
        temperature: T, for the predictions.
        epsilon, iterations: passed on to `sinkhorn`.

    Returns:
        0-d mean over the pairs of views and the batch.

    Raises:
        ValueError: shapes that do not fit, a single view, num_valid without a queue, or a temperature that is too
            small.
    """
    _check_swav(global_scores, local_scores, queue_scores, num_valid, temperature)
    G, B, _ = global_scores.shape
    with torch.autocast(global_scores.device.type, enabled=False):
        together, valid = _assigned_together(global_scores, queue_scores, num_valid)
        assigned = [sinkhorn(rows, epsilon=epsilon, iterations=iterations, valid=valid)[:B] for rows in together]
        views = [global_scores] if local_scores is None else [global_scores, local_scores]
        return swapped_cross_entropy(views, assigned, temperature) / (G * (sum(map(len, views)) - 1))


def _assigned_together(
    scores: Tensor, queue: Tensor | None, num_valid: Tensor | int | None
) -> tuple[Tensor, Tensor | None]:
    """Return the scores that share the prototypes, (G, B + Q, K), the batch before the queue, and a mask of valid
    rows."""
    if queue is None:
        return scores, None
    together = torch.cat([at_least_float32(scores.detach()), at_least_float32(queue.detach())], dim=1)
    if num_valid is None:
        return together, None
    return together, torch.arange(together.shape[1], device=together.device) < scores.shape[1] + num_valid


def _check_swav(
    global_scores: Tensor,
    local_scores: Tensor | None,
    queue_scores: Tensor | None,
    num_valid: Tensor | int | None,
    temperature: float,
) -> None:
    if global_scores.ndim != 3 or 0 in global_scores.shape:
        raise ValueError(f"global scores must be (G, B, K), not {tuple(global_scores.shape)}")
    G, B, K = global_scores.shape
    num_local = 0 if local_scores is None else len(local_scores)
    if local_scores is not None and local_scores.shape != (num_local, B, K):
        raise ValueError(f"local scores must be (L, {B}, {K}), not {tuple(local_scores.shape)}")
    if queue_scores is not None and (queue_scores.ndim != 3 or queue_scores.shape[::2] != (G, K)):
        raise ValueError(f"queue scores must be ({G}, Q, {K}), not {tuple(queue_scores.shape)}")
    if queue_scores is None and num_valid is not None:
        raise ValueError("num_valid needs queue_scores")
    if G + num_local < 2:
        raise ValueError("a single view has no other view to predict: at least two are needed")
    check_temperature(temperature)
