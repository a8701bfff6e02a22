from __future__ import annotations

import torch
from torch import nn

from manyview_server.learn.optimizers import parameter_groups


def names(module: nn.Module) -> tuple[list[str], list[str]]:
    """Return the names of the parameters that decay, and of the others."""
    decaying, others = parameter_groups(module, 0.1)
    known: dict[torch.Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    return [known[p] for p in decaying["params"]], [known[p] for p in others["params"]]


class Transformer(nn.Module):
    """Its token and its positions have the usual names."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
        self.block = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)


class Relative(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias_table = nn.Parameter(torch.zeros(9, 2))
        self.inner = nn.Linear(2, 2, bias=False)

    def no_weight_decay(self) -> set[str]:
        return {"bias_table", "inner.weight", "not_there"}


def test_norms_and_biases_do_not_decay_and_frozen_parameters_are_left_out() -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    network.append(nn.Linear(2, 2).requires_grad_(False))
    assert names(network) == (["0.weight", "2.weight"], ["0.bias", "1.weight", "1.bias", "2.bias"])
    decaying, others = parameter_groups(network, 0.1)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert (decaying["decays"], others["decays"]) == (True, False)


def test_tokens_and_position_embeddings_do_not_decay() -> None:
    decaying, others = names(nn.ModuleDict({"student": Transformer()}))
    assert decaying == ["student.block.weight"]
    assert {"student.cls_token", "student.pos_embed"} <= set(others)


def test_a_module_declares_what_else_does_not() -> None:
    network = nn.ModuleDict({"attention": Relative(), "head": nn.Linear(2, 3)})
    assert names(network) == (["head.weight"], ["attention.bias_table", "attention.inner.weight", "head.bias"])
    assert names(Relative()) == ([], ["bias_table", "inner.weight"])


def test_relative_positions_of_torchvision_do_not_decay() -> None:
    from torchvision.models.convnext import CNBlock
    from torchvision.models.swin_transformer import ShiftedWindowAttention

    for module, name in (
        (ShiftedWindowAttention(8, [2, 2], [0, 0], 2), "relative_position_bias_table"),
        (CNBlock(8, 1e-6, 0.0), "layer_scale"),
    ):
        decaying, others = names(module)
        assert name in others
        assert decaying


def test_torchvisions_vit_is_known() -> None:
    from torchvision.models import VisionTransformer

    vit = VisionTransformer(image_size=8, patch_size=4, num_layers=1, num_heads=1, hidden_dim=4, mlp_dim=4)
    assert {"class_token", "encoder.pos_embedding"} <= set(names(vit)[1])
