from __future__ import annotations

import math

import pytest
import torch

from manyview_server.learn.collapse import healthy_std, representation_std


def test_the_reference_value() -> None:
    features = torch.sin(0.37 * torch.arange(128, dtype=torch.float64) + 0.1).view(8, 16)
    assert representation_std(features).item() == pytest.approx(0.1914458953, abs=1e-9)


def test_collapsed_features_have_none_and_their_length_does_not_matter() -> None:
    direction = torch.randn(1, 32)
    assert representation_std(direction * torch.rand(64, 1).add(0.1)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dim", [64, 512])
def test_isotropic_features_are_near_the_healthy_value(dim: int) -> None:
    features = torch.randn(2048, dim, generator=torch.Generator().manual_seed(0))
    assert representation_std(features).item() == pytest.approx(healthy_std(dim), rel=0.01)
    assert healthy_std(dim) == 1 / math.sqrt(dim)


def test_a_batch_of_one_has_no_spread() -> None:
    assert representation_std(torch.randn(1, 8)).item() == 0


def test_half_precision_is_computed_in_float32() -> None:
    assert representation_std(torch.randn(8, 8).bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("shape", [(8,), (2, 3, 4), (0, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="features must be"):
        representation_std(torch.ones(shape))
