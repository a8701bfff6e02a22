from __future__ import annotations

import pytest
import torch
from torch import Tensor

from manyview_server.learn.losses import nt_xent
from manyview_server.learn.methods import Moment
from manyview_server.learn.methods.contrastive.simclr import SimCLR, SimCLRSettings

START = Moment(step=0, total_steps=10)
SMALL = {"backbone": "resnet9", "backbone_width": 0.125, "image_size": 16, "batch_size": 8, "projection_dim": 16}


@pytest.fixture
def views() -> Tensor:
    return torch.randn(2, 8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_the_loss_is_nt_xent_of_one_pass_over_both_views(views: Tensor) -> None:
    method = SimCLR(SimCLRSettings(**SMALL, temperature=0.3))  # type: ignore[arg-type]
    output = method.forward_loss([views], torch.arange(8), START)
    z = method.head(method.encoder(torch.cat([views[0], views[1]])))
    torch.testing.assert_close(output.loss, nt_xent(z[:8], z[8:], 0.3))
    assert output.representation.shape == (16, method.encoder.feature_dim)
    assert not hasattr(method, "teacher")


def test_with_a_bank_the_negatives_are_earlier_batches_alone(views: Tensor) -> None:
    method = SimCLR(SimCLRSettings(**SMALL, memory_bank_size=20))  # type: ignore[arg-type]
    output = method.forward_loss([views], torch.arange(8), START)
    assert output.loss.item() == pytest.approx(0, abs=1e-6), "an empty bank, and the batch is no negative"
    method.after_step(START, torch.tensor(True), output.carry)
    assert method.bank is not None
    assert method.bank.image_ids[:8].tolist() == list(range(8))
    torch.testing.assert_close(method.bank.keys[:8].norm(dim=1), torch.ones(8))

    assert method.forward_loss([views], torch.arange(8) + 100, START).loss > 0
    assert method.forward_loss([views], torch.zeros(8, dtype=torch.int64), START).scalars["bank_fill"] == 8 / 20


def test_an_images_own_earlier_key_is_no_negative(views: Tensor) -> None:
    method = SimCLR(SimCLRSettings(**SMALL, memory_bank_size=8))  # type: ignore[arg-type]
    output = method.forward_loss([views], torch.zeros(8, dtype=torch.int64), START)
    method.after_step(START, torch.tensor(True), output.carry)
    assert method.forward_loss([views], torch.zeros(8, dtype=torch.int64), START).loss.item() == pytest.approx(
        0, abs=1e-6
    )
