from __future__ import annotations

import pytest
import torch
from torch import Tensor

from manyview_server.learn import losses
from manyview_server.learn.methods.redundancy.barlow_twins import BarlowTwins, BarlowTwinsSettings
from manyview_server.learn.schedules import Moment

START = Moment(step=0, total_steps=10)
SMALL = {"backbone": "resnet9", "backbone_width": 0.125, "image_size": 16, "batch_size": 8, "projection_dim": 16}


def barlow_twins(**overrides: object) -> BarlowTwins:
    torch.manual_seed(0)
    return BarlowTwins(BarlowTwinsSettings(**SMALL, **({"projection_hidden_dim": 32} | overrides)))  # type: ignore[arg-type]


@pytest.fixture
def views() -> Tensor:
    return torch.randn(2, 8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_the_loss_is_that_of_the_cross_correlation_of_one_pass_over_both_views(views: Tensor) -> None:
    method = barlow_twins(off_diagonal_weight=0.02)
    output = method.forward_loss([views], torch.arange(8), START)
    z = method.head(method.encoder(views.flatten(0, 1)))
    torch.testing.assert_close(output.loss, losses.barlow_twins(z[:8], z[8:], 0.02))
    torch.testing.assert_close(output.projection, z.detach())
    assert not hasattr(method, "teacher")


def test_both_views_pull_and_the_order_does_not_matter(views: Tensor) -> None:
    method = barlow_twins()
    first, other = (method.forward_loss([v], torch.arange(8), START).loss for v in (views, views.flip(0)))
    assert first.item() == pytest.approx(other.item(), rel=1e-4)
    images = views.clone().requires_grad_()
    method.forward_loss([images], torch.arange(8), START).loss.backward()
    assert (images.grad.abs().sum((1, 2, 3, 4)) > 0).all()


def test_the_head_is_three_layers_without_a_norm_or_bias_on_the_output() -> None:
    linear = [layer for layer in barlow_twins().head if isinstance(layer, torch.nn.Linear)]  # type: ignore[attr-defined]
    assert [tuple(layer.weight.shape) for layer in linear] == [(32, 64), (32, 32), (16, 32)]
    assert all(layer.bias is None for layer in linear)
    assert isinstance(barlow_twins().head[-1], torch.nn.Linear)
    assert len([layer for layer in barlow_twins(projection_layers=2).head if isinstance(layer, torch.nn.Linear)]) == 2  # type: ignore[attr-defined]
