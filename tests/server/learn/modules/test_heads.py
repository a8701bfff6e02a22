from __future__ import annotations

import pytest
import torch
from torch import nn

from manyview_server.learn.modules import heads


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


def layers(head: nn.Sequential) -> list[str]:
    """Each layer in a word: widths and bias of a linear one, whether a norm has weights."""

    def word(layer: nn.Module) -> str:
        match layer:
            case nn.Linear():
                return f"{layer.in_features}-{layer.out_features}{'' if layer.bias is None else ' bias'}"
            case nn.BatchNorm1d():
                return "norm" if layer.affine else "plain norm"
            case _:
                return "relu"

    return [word(layer) for layer in head]


def test_heads_have_the_layers_of_their_papers() -> None:
    assert layers(heads.byol_head(32, 64, 16)) == ["32-64", "norm", "relu", "64-16"]
    assert layers(heads.prediction_head(16, 8)) == ["16-8", "norm", "relu", "8-16 bias"]
    assert layers(heads.swav_head(32, 64, 16)) == ["32-64", "norm", "relu", "64-16 bias"]
    wide = ["32-64", "norm", "relu", "64-64", "norm", "relu"]
    assert layers(heads.simsiam_head(32, 64, 16)) == [*wide, "64-16", "plain norm"]
    assert layers(heads.nnclr_head(32, 64, 16)) == [*wide, "64-16", "norm"]
    assert layers(heads.expander_head(32, 64, 16)) == [*wide, "64-16"]


def test_deeper_heads_repeat_the_hidden_layer() -> None:
    for head in (heads.simsiam_head, heads.nnclr_head, heads.expander_head):
        widths = [layer for layer in layers(head(32, 64, 16, num_layers=4)) if layer[0].isdigit()]
        assert widths == ["32-64", "64-64", "64-64", "64-16"]
        assert [layer for layer in layers(head(32, 64, 16, num_layers=2)) if layer[0].isdigit()] == ["32-64", "64-16"]


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
