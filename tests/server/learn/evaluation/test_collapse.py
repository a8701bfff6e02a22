from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from manyview_server.learn.evaluation import collapse
from manyview_server.learn.evaluation.collapse import (
    alignment,
    effective_rank,
    effective_rank_of_gram,
    gram,
    representation_std,
    uniformity,
)

OF_ROWS = [representation_std, uniformity, effective_rank, gram]


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# ---- standard deviation ----


def test_the_reference_value() -> None:
    features = torch.sin(0.37 * torch.arange(128, dtype=torch.float64) + 0.1).view(8, 16)
    assert representation_std(features).item() == pytest.approx(0.1914458953, abs=1e-9)


def test_the_std_by_hand() -> None:
    """Unit rows (1, 0) and (0, 1): in each dimension 0 and 1, whose standard deviation is sqrt(1/2)."""
    assert representation_std(torch.tensor([[5.0, 0.0], [0.0, 0.1]])).item() == pytest.approx(math.sqrt(0.5))


def test_collapsed_features_have_none_and_their_length_does_not_matter() -> None:
    direction = torch.randn(1, 32)
    assert representation_std(direction * torch.rand(64, 1).add(0.1)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dim", [64, 512])
def test_isotropic_features_are_near_the_healthy_value(dim: int) -> None:
    assert representation_std(normal(2048, dim)).item() == pytest.approx(1 / math.sqrt(dim), rel=0.01)


# ---- alignment ----


def test_alignment_by_hand() -> None:
    """Image 0: the same direction, 0. Image 1: orthogonal, 2. Image 2: opposite, 4."""
    one = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    other = torch.tensor([[3.0, 0.0], [0.0, 0.5], [0.0, -1.0]])
    assert alignment(torch.stack([one, other])).item() == pytest.approx((0 + 2 + 4) / 3)


def test_alignment_is_the_papers_over_all_pairs_of_views() -> None:
    views = normal(4, 16, 8).double()
    unit = torch.nn.functional.normalize(views, dim=2)
    pairs = [(unit[i] - unit[j]).norm(dim=1).pow(2).mean() for i in range(4) for j in range(i)]
    assert alignment(views).item() == pytest.approx(torch.stack(pairs).mean().item(), abs=1e-12)


def test_views_that_coincide_are_aligned_to_the_last_digit() -> None:
    view = normal(16, 8)
    assert alignment(torch.stack([view, view])).item() == pytest.approx(0, abs=1e-12)
    assert alignment(view[None]).item() == 0, "one view has no other"


@pytest.mark.parametrize("shape", [(8, 4), (0, 4, 2), (2, 0, 4), (2, 4, 0)])
def test_views_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"views must be \(V, B, D\)"):
        alignment(torch.ones(shape))


# ---- uniformity ----


def test_uniformity_by_hand() -> None:
    """Pairs at squared distance 2, 4 and 2: the mean of e^-4, e^-8 and e^-4."""
    features = torch.tensor([[1.0, 0.0], [0.0, 7.0], [-2.0, 0.0]])
    expected = math.log((2 * math.exp(-4) + math.exp(-8)) / 3)
    assert uniformity(features).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("t", [0.5, 2.0])
@pytest.mark.parametrize("chunk", [1, 70, 4_000_000])
def test_uniformity_is_the_papers_whatever_the_chunk(t: float, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collapse, "CHUNK_PAIRS", chunk)
    features = normal(33, 8).double()
    unit = torch.nn.functional.normalize(features, dim=1)
    papers = torch.pdist(unit, p=2).pow(2).mul(-t).exp().mean().log()
    assert uniformity(features, t).item() == pytest.approx(papers.item(), abs=1e-12)


def test_uniformity_of_a_collapse_is_zero_and_of_an_even_sphere_near_minus_2t() -> None:
    assert uniformity(torch.ones(64, 8)).item() == pytest.approx(0, abs=1e-5)
    assert uniformity(torch.ones(1, 8)).item() == 0, "one row has no pair"
    assert uniformity(normal(512, 512)).item() == pytest.approx(-4, abs=0.05)


def test_the_bias_of_the_logarithm_is_below_a_hundredth_from_64_rows_on() -> None:
    """Batches of 64 against all rows, for a sphere of few dimensions, where it is worst."""
    features = normal(4096, 16)
    batches = torch.stack([uniformity(batch) for batch in features.split(64)])
    assert batches.mean().item() == pytest.approx(uniformity(features).item(), abs=0.01)


def test_t_must_be_above_zero() -> None:
    with pytest.raises(ValueError, match="t must be above 0, not 0"):
        uniformity(torch.ones(2, 2), t=0)


def test_autocast_does_not_reach_uniformity() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        inside = uniformity(normal(64, 8))
    assert torch.equal(inside, uniformity(normal(64, 8)))


# ---- effective rank ----


def test_the_rank_by_hand() -> None:
    """Singular values 3 and 1: p = 3/4 and 1/4, e^H = 4 / 3^(3/4)."""
    features = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert effective_rank(features).item() == pytest.approx(4 / 3**0.75)
    assert effective_rank(features.T).item() == pytest.approx(4 / 3**0.75)


def test_the_rank_is_the_papers() -> None:
    features = normal(40, 12).double()
    singular = torch.linalg.svdvals(features)
    p = singular / singular.sum() + 1e-7  # with the paper's epsilon, which changes little
    assert effective_rank(features).item() == pytest.approx(torch.exp(-(p * p.log()).sum()).item(), rel=1e-4)


@pytest.mark.parametrize("shape", [(64, 16), (16, 64)])
def test_the_rank_goes_from_one_to_the_smaller_side(shape: tuple[int, int]) -> None:
    rows, columns = shape
    line = normal(rows, 1) * normal(1, columns)
    assert effective_rank(line).item() == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.eye(rows, columns) * 3).item() == pytest.approx(16)
    assert effective_rank(torch.ones(1, columns)).item() == pytest.approx(1)


def test_the_rank_sees_dimensions_that_died() -> None:
    features = normal(256, 64)
    dead = features.clone()
    dead[:, 8:] = 0
    assert effective_rank(features).item() > 50
    assert effective_rank(dead).item() == pytest.approx(8, abs=0.1)


def test_zeros_have_no_rank_and_what_is_not_finite_gives_nan_without_an_error() -> None:
    assert effective_rank(torch.zeros(4, 3)).item() == 0
    assert math.isnan(effective_rank(torch.tensor([[1.0, math.nan], [1.0, 2.0]])).item())
    assert math.isnan(effective_rank(torch.tensor([[1.0, math.inf], [1.0, 2.0]])).item())


def test_the_smaller_product_is_enough_for_the_rank() -> None:
    features = normal(20, 300)
    assert gram(features).shape == gram(features.T).shape == (20, 20)
    assert torch.equal(effective_rank_of_gram(gram(features)), effective_rank(features))


# ---- all of them ----


def test_a_batch_of_one_has_no_spread() -> None:
    assert representation_std(torch.randn(1, 8)).item() == 0


@pytest.mark.parametrize("function", OF_ROWS)
def test_half_precision_is_computed_in_float32_at_least(function: Any) -> None:
    half = normal(8, 8).bfloat16()
    assert function(half).dtype in (torch.float32, torch.float64)
    assert torch.equal(function(half), function(half.float()))


@pytest.mark.parametrize("function", OF_ROWS)
@pytest.mark.parametrize("shape", [(8,), (2, 3, 4), (0, 4), (4, 0)])
def test_other_shapes_are_refused(function: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="features must be"):
        function(torch.ones(shape))
