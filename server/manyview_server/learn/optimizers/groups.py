"""Groups of parameters: those that decay, and those that do not."""

from __future__ import annotations

from torch import nn

from manyview_server.learn.optimizers.optimizer import ParameterGroup

TOKENS_AND_POSITIONS = frozenset(
    {"cls_token", "class_token", "mask_token", "reg_token"}
    | {"pos_embed", "pos_embedding", "relative_position_bias_table"}
    | {"layer_scale"}  # of torchvision's ConvNeXt, with three axes
)
"""Names that timm and torchvision give to tokens and position embeddings."""


def parameter_groups(module: nn.Module, weight_decay: float) -> list[ParameterGroup]:
    """Return the trained parameters in two groups: weights, which decay, and the rest, which does not.

    The rest is norms and biases (at most one axis), tokens and position embeddings by their usual names, and the
    parameters that a module inside `module` declares: as in timm, its method ``no_weight_decay()`` returns the names of
    its own parameters that must not decay.
    """
    declared = _declared(module)
    groups: list[ParameterGroup] = [
        {"params": [], "weight_decay": weight_decay, "decays": True},
        {"params": [], "weight_decay": 0.0, "decays": False},
    ]
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            usual = name.rpartition(".")[2] in TOKENS_AND_POSITIONS
            groups[parameter.ndim <= 1 or usual or name in declared]["params"].append(parameter)
    return groups


def _declared(module: nn.Module) -> set[str]:
    names: set[str] = set()
    for path, part in module.named_modules():
        declare = getattr(part, "no_weight_decay", None)
        if callable(declare):
            names |= {f"{path}.{name}" if path else name for name in declare()}
    return names
