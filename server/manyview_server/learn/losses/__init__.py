"""Losses, as pure functions: in float32 or above whatever autocast says, never waiting for the device.

`contrastive`: other images repel. `neighbours`: a neighbour is the positive. `redundancy`: the axes of a projection
are kept apart instead. `spread`: projections are kept apart by themselves. `similarity`: views attract, and nothing
repels; the method has to keep them from collapsing. `distillation`, `clustering`: what a teacher, or an assignment to
prototypes, says of one view is to be said of the other. `reconstruction`: hidden patches are guessed.

`normalize` holds what they share.
"""

from __future__ import annotations

from manyview_server.learn.losses.clustering import sinkhorn, swav
from manyview_server.learn.losses.contrastive import dcl, info_nce, nt_xent
from manyview_server.learn.losses.distillation import dino, update_center
from manyview_server.learn.losses.neighbours import Nearest, nearest_keys, nnclr
from manyview_server.learn.losses.reconstruction import mae, normalized_patches, patchify, simmim, unpatchify
from manyview_server.learn.losses.redundancy import barlow_twins, vicreg
from manyview_server.learn.losses.similarity import negative_cosine
from manyview_server.learn.losses.spread import koleo

__all__ = [
    "Nearest",
    "barlow_twins",
    "dcl",
    "dino",
    "info_nce",
    "koleo",
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
    "unpatchify",
    "update_center",
    "vicreg",
]
