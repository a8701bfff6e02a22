"""Losses as pure functions. They compute in float32 or wider, even under autocast, and never wait for the device.

It may import what `learn` may import, and its neighbors `normalize`.

- `contrastive`: other images repel. `bank_negatives`: sums over the keys of a memory bank. `neighbors`: the nearest
  other image is the positive.
- `redundancy`: the axes of a projection are kept apart instead of images.
- `similarity`: views attract and nothing repels, so the method must prevent collapse.
- `distillation`, `clustering`: one view predicts a teacher's output for another view, or its assignment to prototypes.
- `soft_targets`: the cross-entropy that both of these share.
- `reconstruction`: the pixels of hidden patches are predicted.
- `temperature`: the range of temperatures that the losses accept.
"""

from __future__ import annotations

from manyview_server.learn.losses.clustering import sinkhorn, swav
from manyview_server.learn.losses.contrastive import dcl, info_nce, nt_xent
from manyview_server.learn.losses.distillation import dino, update_center
from manyview_server.learn.losses.neighbors import Nearest, nearest_keys, nnclr
from manyview_server.learn.losses.reconstruction import mae, normalized_patches, patchify, simmim
from manyview_server.learn.losses.redundancy import barlow_twins, vicreg
from manyview_server.learn.losses.similarity import negative_cosine

__all__ = [
    "Nearest",
    "barlow_twins",
    "dcl",
    "dino",
    "info_nce",
    "mae",
    "nearest_keys",
    "negative_cosine",
    "nnclr",
    "normalized_patches",
    "nt_xent",
    "patchify",
    "simmim",
    "sinkhorn",
    "swav",
    "update_center",
    "vicreg",
]
