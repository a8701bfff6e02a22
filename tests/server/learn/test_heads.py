from __future__ import annotations

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
