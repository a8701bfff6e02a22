"""Weights from elsewhere, put into a backbone whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from manyview_server.learn.backbones.backbone import Backbone

COUNTER = "num_batches_tracked"
"""Of a batch norm; files that were not written by torch may lack it, and nothing depends on it."""
SHOWN = 4


def load_weights(backbone: Backbone, tensors: Mapping[str, Tensor]) -> None:
    """Put `tensors` into `backbone`, a classifier and the like left aside (see `Backbone.fitted`).

    Raises:
        ValueError: they are of another network; says which names are missing, unexpected or of another shape. The
            backbone is as it was then.
    """
    own, found = backbone.state_dict(), backbone.fitted(tensors)
    missing = [name for name in own if name not in found and not name.endswith(COUNTER)]
    unexpected = [name for name in found if name not in own]
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in found and found[name].shape != tensor.shape
    ]
    kinds = (("missing", missing), ("not known to it", unexpected), ("of another shape", shapes))
    if problems := "; ".join(f"{kind}: {_few(names)}" for kind, names in kinds if names):
        raise ValueError(f"the weights are of another network: {problems}")
    backbone.load_state_dict({**own, **found})


def _few(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")
