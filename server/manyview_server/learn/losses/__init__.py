"""Losses, as pure functions of projections: in float32 or above whatever autocast says, never waiting for the device.

`contrastive`: other images repel. `redundancy`: the axes of a projection are kept apart instead. `similarity`: views
attract, and nothing repels; the method has to keep them from collapsing.
"""

from __future__ import annotations

from manyview_server.learn.losses.contrastive import dcl, info_nce, nt_xent
from manyview_server.learn.losses.redundancy import barlow_twins, vicreg
from manyview_server.learn.losses.similarity import negative_cosine

__all__ = ["barlow_twins", "dcl", "info_nce", "negative_cosine", "nt_xent", "vicreg"]
