from __future__ import annotations

import pytest
import torch
from torch import nn

from manyview_server.learn import heads


def test_simclr_norms_the_hidden_layer_and_the_output() -> None:
    head = heads.simclr_head(32, 64, 16)
    assert [type(layer) for layer in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d]
    assert head[0].bias is None
    assert head[3].bias is None
    out = head(torch.randn(128, 32))
    assert out.shape == (128, 16)
    torch.testing.assert_close(out.mean(0), torch.zeros(16), atol=1e-5, rtol=0)


def test_moco_has_no_batch_norm_so_rows_do_not_see_one_another() -> None:
    head = heads.moco_head(32, 64, 16)
    features = torch.randn(8, 32)
    assert head(features).shape == (8, 16)
    torch.testing.assert_close(head(features)[:3], head(features[:3]))


def test_swav_norms_the_hidden_layer_alone() -> None:
    head = heads.swav_head(32, 64, 16)
    assert [type(layer) for layer in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert (head[0].bias is None, head[3].bias is None) == (True, False)
    assert head(torch.randn(8, 32)).shape == (8, 16)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_dino_has_three_layers_with_gelu_and_norms_only_if_told(batch_norm: bool) -> None:
    head = heads.dino_head(32, 64, 16, batch_norm=batch_norm)
    hidden = [nn.Linear, nn.BatchNorm1d, nn.GELU] if batch_norm else [nn.Linear, nn.GELU]
    assert [type(layer) for layer in head] == [*hidden, *hidden, nn.Linear]
    layers = [layer for layer in head if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(32, 64), (64, 64), (64, 16)]
    assert [layer.bias is None for layer in layers] == [batch_norm, batch_norm, False]
    assert all(layer.weight.std().item() == pytest.approx(0.02, rel=0.15) for layer in layers)
    assert head(torch.randn(8, 32)).shape == (8, 16)
