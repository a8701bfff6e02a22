from __future__ import annotations

import pytest
import torch
from torch import Tensor

from manyview_server.learn import losses
from manyview_server.learn.methods import Moment
from manyview_server.learn.methods.contrastive.dcl import DCL, DCLSettings, DCLWSettings

START = Moment(step=0, total_steps=10)
SMALL = {"backbone": "resnet9", "backbone_width": 0.125, "image_size": 16, "batch_size": 8, "projection_dim": 16}


@pytest.fixture
def views() -> Tensor:
    return torch.randn(2, 8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("settings", "weight_sigma"),
    [(DCLSettings(**SMALL, temperature=0.3), None), (DCLWSettings(**SMALL, temperature=0.3, weight_sigma=0.4), 0.4)],  # type: ignore[arg-type]
)
def test_the_loss_is_that_of_one_pass_over_both_views(
    views: Tensor, settings: DCLSettings | DCLWSettings, weight_sigma: float | None
) -> None:
    method = DCL(settings)
    output = method.forward_loss([views], torch.arange(8), START)
    z = method.head(method.encoder(torch.cat([views[0], views[1]])))
    torch.testing.assert_close(output.loss, losses.dcl(z[:8], z[8:], 0.3, weight_sigma=weight_sigma))
    assert output.representation.shape == (16, method.encoder.feature_dim)
    assert output.projection is not None
    assert output.projection.shape == (16, 16)


def test_weights_of_pairs_are_only_dclws(views: Tensor) -> None:
    torch.manual_seed(0)
    method = DCL(DCLSettings(**SMALL))  # type: ignore[arg-type]
    torch.manual_seed(0)
    weighted = DCL(DCLWSettings(**SMALL))  # type: ignore[arg-type]
    one, other = (each.forward_loss([views], torch.arange(8), START).loss for each in (method, weighted))
    assert not torch.allclose(one, other)
