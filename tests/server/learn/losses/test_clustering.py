from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from manyview_server.learn.losses import sinkhorn, swav
from support.learning.golden import value_and_gradient_norm, waves

A, B, C = waves(8, 16, 0.1), waves(8, 16, 1.3), waves(8, 16, 4.4)


def listing_a1(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The paper's pseudocode: sums of the whole, of the prototypes, of the samples."""
    q = torch.exp(scores / epsilon).T
    q = q / q.sum()
    K, N = q.shape
    for _ in range(iterations):
        q = q / q.sum(1, keepdim=True) / K
        q = q / q.sum(0, keepdim=True) / N
    return (q / q.sum(0, keepdim=True)).T


def swapped(views: list[Tensor], num_global: int, temperature: float) -> float:
    """Equation 2 over all pairs, one image at a time."""
    total, pairs = 0.0, 0
    for g in range(num_global):
        q = listing_a1(views[g], 0.05, 3)
        for v, view in enumerate(views):
            if v != g:
                pairs += 1
                for i in range(len(view)):
                    p = torch.softmax(view[i] / temperature, 0)
                    total -= float((q[i] * p.log()).sum()) / len(view)
    return total / pairs


def test_sinkhorn_has_the_reference_values() -> None:
    expected = torch.tensor([0.2531329133, 0.2523671034, 0.2450452684], dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(A)[0, :3], expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("iterations", [1, 2, 3, 10])
@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_sinkhorn_is_the_papers_listing(epsilon: float, iterations: int) -> None:
    torch.testing.assert_close(
        sinkhorn(A, epsilon=epsilon, iterations=iterations), listing_a1(A, epsilon, iterations), atol=1e-12, rtol=1e-9
    )


def test_swav_has_the_reference_value_and_gradient() -> None:
    value, gradient_norm = value_and_gradient_norm(lambda a: swav(torch.stack([a, B]), C[None]), A)
    assert value == pytest.approx(12.08882462, abs=1e-6)
    assert gradient_norm == pytest.approx(0.68644826, abs=1e-6)


@pytest.mark.parametrize(("num_global", "num_local"), [(2, 0), (1, 1), (2, 3), (3, 1)])
def test_swav_is_the_papers_equation_over_all_pairs(num_global: int, num_local: int) -> None:
    views = [waves(5, 6, phase) for phase in range(num_global + num_local)]
    local = torch.stack(views[num_global:]) if num_local else None
    value = swav(torch.stack(views[:num_global]), local, temperature=0.2)
    assert value.item() == pytest.approx(swapped(views, num_global, 0.2), abs=1e-9)


def test_swav_by_hand_where_each_view_names_its_prototype() -> None:
    """Two images, two prototypes: assignments are all but hard, and each view gives its own 1 / (1 + e^-10)."""
    views = torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    assert swav(views, temperature=0.1).item() == pytest.approx(4.54e-5 * (1 + 1e-3), rel=1e-2)
    swapped_images = torch.stack([views[0], views[1].flip(1)])
    assert swav(swapped_images, temperature=0.1).item() == pytest.approx(10, abs=1e-3)


def test_the_order_of_global_views_does_not_matter() -> None:
    one, other = swav(torch.stack([A, B]), C[None]), swav(torch.stack([B, A]), C[None])
    assert one.item() == pytest.approx(other.item(), abs=1e-12)


def test_the_queue_takes_part_in_the_assignment_and_in_nothing_else() -> None:
    queue = torch.stack([waves(11, 16, 2.0), waves(11, 16, 3.0)])
    q = [sinkhorn(torch.cat([view, rows]))[:8] for view, rows in zip((A, B), queue, strict=True)]
    log_p = [F.log_softmax(view / 0.1, dim=1) for view in (A, B)]
    expected = -((q[0] * log_p[1]).sum(1).mean() + (q[1] * log_p[0]).sum(1).mean()) / 2
    leaf = queue.clone().requires_grad_()
    value = swav(torch.stack([A, B]).requires_grad_(), queue_scores=leaf)
    value.backward()
    assert value.item() == pytest.approx(expected.item(), abs=1e-9)
    assert leaf.grad is None
    assert value.item() != pytest.approx(swav(torch.stack([A, B])).item(), abs=1e-3)


@pytest.mark.parametrize("num_valid", [0, 4, 11])
def test_rows_of_the_queue_that_were_never_filled_are_as_if_they_were_not_there(num_valid: int) -> None:
    queue = torch.stack([waves(11, 16, 2.0), waves(11, 16, 3.0)])
    expected = swav(torch.stack([A, B]), queue_scores=queue[:, :num_valid])
    for valid in (num_valid, torch.tensor(num_valid)):
        value = swav(torch.stack([A, B]), queue_scores=queue, num_valid=valid)
        assert value.item() == pytest.approx(expected.item(), abs=1e-12)


@settings(deadline=None, max_examples=100)
@given(
    rows=st.integers(1, 9),
    prototypes=st.integers(1, 9),
    scale=st.sampled_from([0.0, 1.0, 100.0, 1e6]),
    seed=st.integers(0, 10_000),
    dropped=st.integers(0, 8),
)
def test_rows_sum_to_one_and_prototypes_share_them_whatever_the_scores(
    rows: int, prototypes: int, scale: float, seed: int, dropped: int
) -> None:
    scores = scale * torch.randn(rows, prototypes, generator=torch.Generator().manual_seed(seed))
    valid = torch.arange(rows) >= min(dropped, rows - 1)
    q = sinkhorn(scores, valid=valid)
    assert q.isfinite().all()
    assert not q[~valid].any()
    torch.testing.assert_close(q[valid].sum(1), torch.ones(int(valid.sum())), atol=1e-5, rtol=0)
    torch.testing.assert_close(q[valid], sinkhorn(scores[valid]), atol=1e-6, rtol=1e-5)
    many = sinkhorn(scores / max(scale, 1), epsilon=1.0, iterations=200)
    torch.testing.assert_close(many.sum(0), torch.full((prototypes,), rows / prototypes), atol=1e-2, rtol=1e-2)


def test_an_assignment_does_not_change_when_a_prototype_is_nearer_to_all_rows() -> None:
    nearer_to_the_first = A + torch.nn.functional.one_hot(torch.tensor(0), 16)
    torch.testing.assert_close(sinkhorn(nearer_to_the_first), sinkhorn(A), atol=1e-12, rtol=1e-9)


def test_degenerate_batches_are_finite() -> None:
    for scores in (torch.zeros(2, 4, 3), torch.ones(2, 1, 5), torch.full((2, 4, 3), 1e6), torch.randn(2, 3, 1)):
        scores.requires_grad_()
        value = swav(scores)
        value.backward()
        assert value.isfinite()
        assert scores.grad is not None
        assert scores.grad.isfinite().all()


def test_it_computes_in_float32_inside_autocast_and_from_half_precision() -> None:
    scores = torch.stack([A, B]).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = swav(scores, queue_scores=scores)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(swav(scores.double(), queue_scores=scores.double()).item(), rel=1e-5)


def test_what_cannot_be_is_refused() -> None:
    views = torch.stack([A, B])
    with pytest.raises(ValueError, match="a single view has no other view"):
        swav(A[None])
    with pytest.raises(ValueError, match=r"global scores must be \(G, B, K\), not \(8, 16\)"):
        swav(A)
    with pytest.raises(ValueError, match=r"local scores must be \(L, 8, 16\), not \(8, 16\)"):
        swav(views, C)
    with pytest.raises(ValueError, match=r"queue scores must be \(2, Q, 16\), not \(3, 16\)"):
        swav(views, queue_scores=torch.ones(3, 16))
    with pytest.raises(ValueError, match="num_valid needs queue_scores"):
        swav(views, num_valid=3)
    with pytest.raises(ValueError, match=r"temperature must be at least 0\.001, not 0"):
        swav(views, temperature=0)
    with pytest.raises(ValueError, match=r"epsilon must be at least 0\.001, not nan"):
        sinkhorn(A, epsilon=float("nan"))
    with pytest.raises(ValueError, match="iterations must be at least 1, not 0"):
        sinkhorn(A, iterations=0)
    with pytest.raises(ValueError, match=r"scores must be \(N, K\), not \(0, 4\)"):
        sinkhorn(torch.ones(0, 4))
