from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from manyview_server.learn.losses import nnclr
from manyview_server.learn.methods import Moment
from manyview_server.learn.methods.contrastive.nnclr import NNCLR, NNCLRSettings

START = Moment(step=0, total_steps=10)
YES = torch.tensor(True)
SMALL = {"backbone": "resnet9", "backbone_width": 0.125, "image_size": 16, "batch_size": 8, "projection_dim": 16}


@pytest.fixture
def views() -> Tensor:
    return torch.randn(2, 8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def method_and_projections(views: Tensor) -> tuple[NNCLR, Tensor, Tensor]:
    torch.manual_seed(0)
    method = NNCLR(NNCLRSettings(**SMALL, memory_bank_size=24, temperature=0.3))  # type: ignore[arg-type]
    z = method.head(method.encoder(views.flatten(0, 1)))
    return method, z, method.predictor(z)


def test_without_a_support_set_a_view_stands_for_itself(views: Tensor) -> None:
    method, z, p = method_and_projections(views)
    output = method.forward_loss([views], torch.arange(8), START)
    z = z.detach()
    torch.testing.assert_close(output.loss, (nnclr(z[:8], p[8:], 0.3) + nnclr(z[8:], p[:8], 0.3)) / 2)


def test_positives_are_the_nearest_of_earlier_images_and_never_of_the_batch(views: Tensor) -> None:
    method, z, p = method_and_projections(views)
    earlier = F.normalize(torch.randn(10, 16), dim=1)
    method.bank.enqueue(earlier, torch.arange(100, 110))
    output = method.forward_loss([views], torch.arange(8), START)
    nearest = earlier[(F.normalize(z.detach(), dim=1) @ earlier.T).argmax(1)]
    torch.testing.assert_close(output.loss, (nnclr(nearest[:8], p[8:], 0.3) + nnclr(nearest[8:], p[:8], 0.3)) / 2)


def test_the_support_set_takes_view_0_after_the_step(views: Tensor) -> None:
    method, z, _ = method_and_projections(views)
    carry = method.forward_loss([views], torch.arange(8), START).carry
    assert method.bank.filled == 0
    method.after_step(START, YES, carry)
    assert method.bank.image_ids[:8].tolist() == list(range(8))
    torch.testing.assert_close(method.bank.keys[:8], F.normalize(z[:8].detach(), dim=1))


def test_no_gradient_flows_through_the_neighbors(views: Tensor) -> None:
    method, _, _ = method_and_projections(views)
    method.forward_loss([views], torch.arange(8), START).loss.backward()
    assert all(parameter.grad is not None for parameter in method.predictor.parameters())
    assert not method.bank.keys.requires_grad
