from __future__ import annotations

import pytest
import torch
from torch import Tensor

from manyview_server.learn import losses, methods
from manyview_server.learn.methods.redundancy.vicreg import VICReg, VICRegSettings
from manyview_server.learn.schedules import Moment

START = Moment(step=0, total_steps=10)
SMALL = {"backbone": "resnet9", "backbone_width": 0.125, "image_size": 16, "batch_size": 8, "projection_dim": 16}


def vicreg(**overrides: object) -> VICReg:
    torch.manual_seed(0)
    return VICReg(VICRegSettings(**SMALL, **({"projection_hidden_dim": 32} | overrides)))  # type: ignore[arg-type]


@pytest.fixture
def views() -> Tensor:
    return torch.randn(2, 8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_the_loss_is_the_weighted_sum_for_one_pass_over_both_views(views: Tensor) -> None:
    method = vicreg(invariance_weight=3.0, variance_weight=5.0, covariance_weight=2.0)
    output = method.forward_loss([views], torch.arange(8), START)
    z = method.head(method.encoder(views.flatten(0, 1)))
    torch.testing.assert_close(output.loss, losses.vicreg(z[:8], z[8:], 3.0, 5.0, 2.0))
    torch.testing.assert_close(output.projection, z.detach())
    assert not hasattr(method, "teacher")


def test_both_views_pull_and_the_order_does_not_matter(views: Tensor) -> None:
    method = vicreg()
    first, other = (method.forward_loss([v], torch.arange(8), START).loss for v in (views, views.flip(0)))
    assert first.item() == pytest.approx(other.item(), rel=1e-4)
    images = views.clone().requires_grad_()
    method.forward_loss([images], torch.arange(8), START).loss.backward()
    assert (images.grad.abs().sum((1, 2, 3, 4)) > 0).all()


def test_the_head_is_two_layers_without_a_norm_or_bias_on_the_output() -> None:
    linear = [layer for layer in vicreg().head if isinstance(layer, torch.nn.Linear)]  # type: ignore[attr-defined]
    assert [tuple(layer.weight.shape) for layer in linear] == [(32, 64), (16, 32)]
    assert all(layer.bias is None for layer in linear)
    assert len([layer for layer in vicreg(projection_layers=3).head if isinstance(layer, torch.nn.Linear)]) == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["vicreg", "barlow_twins"])
def test_methods_whose_first_gradients_are_long_clip_them_by_default(method: str) -> None:
    # Otherwise VICReg with ResNet-9 x 0.25 has no finite loss after 20 steps of 32 photographs.
    assert methods.resolve(method, {}).optimizer.clip_gradient_norm == 2
