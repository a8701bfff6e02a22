"""Load weights from elsewhere into a backbone, completely or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from manyview_server.learn.backbones.backbone import Backbone

COUNTER = "num_batches_tracked"
"""A counter of batch norms. Files that were not written by torch may lack it, and nothing depends on it."""
SHOWN = 4


class WeightsNotFinite(ValueError):
    """Tensors hold NaN or infinity. A network with them returns no finite value for any image."""


def check_finite(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise WeightsNotFinite if tensors are not finite, or are not finite in the type in which the network holds them.

    Args:
        tensors: what was read.
        own: the network's tensors by the same names. A tensor that is not finite there, such as a mask, is exempt.
    """
    damaged = []
    for name, tensor in tensors.items():
        wanted = own.get(name)
        if wanted is None or not wanted.is_floating_point():
            continue
        finite = torch.isfinite(tensor.to(wanted.device, wanted.dtype))
        if not finite.all() and torch.isfinite(wanted).all():
            damaged.append(f"{name} ({int((~finite).sum()):,} of {finite.numel():,} values)")
    if damaged:
        raise WeightsNotFinite(f"the weights are not finite: {_few(damaged)}")


def load_weights(backbone: Backbone, tensors: Mapping[str, Tensor]) -> None:
    """Load `tensors` into `backbone`, without a classifier and other layers that it does not have (see
    `Backbone.fitted`).

    Raises:
        ValueError: they belong to another network. The message says which names are missing or unexpected, or have
            another shape. The backbone is unchanged.
        WeightsNotFinite: some are NaN or infinite. The message names them. The backbone is unchanged.
    """
    own, found = backbone.state_dict(), backbone.fitted(tensors)
    missing = [name for name in own if name not in found and not name.endswith(COUNTER)]
    unexpected = [name for name in found if name not in own]
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in found and found[name].shape != tensor.shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("with another shape", shapes))
    if problems := "; ".join(f"{kind}: {_few(names)}" for kind, names in kinds if names):
        raise ValueError(f"the weights belong to another network: {problems}")
    check_finite(found, own)
    backbone.load_state_dict({**own, **found})


def _few(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")
