"""SimMIM: hidden patches are replaced by one learned token, and a linear layer predicts their pixels.

Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling", arXiv 2111.09886.
Shapes: B batch, N patches, p patch size, D feature.
"""

# ruff: noqa: RUF009 - the fields' defaults are frozen
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from manyview_server.configuration import changed, setting
from manyview_server.learn import losses
from manyview_server.learn.encoder import build_encoder
from manyview_server.learn.losses import patchify
from manyview_server.learn.methods.method import Method, StepOutput, Views
from manyview_server.learn.methods.reconstruction.masked import MaskedImageSettings, mask_ratio, transformer
from manyview_server.learn.modules.masking import block_mask
from manyview_server.learn.schedules import Moment
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views.presets import PRESETS
from manyview_server.learn.views.recipe import ViewSettings

BLOCKS_ON_A_SIDE = 6
"""Hidden squares along a side of the image: the paper hides squares of 32 pixels in images of 192."""


@dataclass(frozen=True, kw_only=True)
class SimMIMSettings(MaskedImageSettings):
    """SimMIM (arXiv 2111.09886): the pixels of hidden patches are predicted by a single linear layer."""

    method: Literal["simmim"] = setting("simmim", "Self-supervised method.")
    mask_ratio: float = mask_ratio(0.6)
    mask_block: int | None = setting(
        None,
        "Side of the squares in which patches are hidden, in patches; null means a sixth of the image's side.",
        minimum=1,
        maximum=64,
    )
    views: ViewSettings = changed(TrainSettings, "views", PRESETS["simmim"])

    @property
    def block(self) -> int:
        """The side of the squares that are hidden, in patches."""
        return self.mask_block or max(1, round(self.image_size // self.patch_px / BLOCKS_ON_A_SIDE))

    def mask(self, image_ids: Tensor, grid: tuple[int, int], *, epoch: int) -> Tensor:
        """Return a mask (B, N) of bools for a grid of patches, true for the hidden ones."""
        return block_mask(image_ids, grid, self.mask_ratio, block=self.block, seed=self.seed, epoch=epoch)

    def hidden_patches(self, image_ids: Tensor, size: int, *, epoch: int) -> Tensor:
        return self.mask(image_ids, (size // self.patch_px, size // self.patch_px), epoch=epoch)


class SimMIM(Method):
    """Section 3 of the paper.

    Differs from the paper: the backbone is a plain vision transformer with fixed positions. The blocks of the paper's
    backbone share relative positions.
    """

    def __init__(self, settings: SimMIMSettings) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = build_encoder(settings)
        vit = transformer(self.encoder)
        self.chosen = {"mask_block": settings.block}
        self.mask_token = nn.Parameter(torch.empty(vit.feature_dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.predict = nn.Linear(vit.feature_dim, 3 * vit.patch_size**2)

    def forward_loss(self, views: Views, image_ids: Tensor, moment: Moment) -> StepOutput:
        images, vit = views[0][0], transformer(self.encoder)  # (B, 3, o, o)
        hidden = self.settings.mask(image_ids, vit.grid(*images.shape[2:]), epoch=moment.image_epoch)
        tokens = vit.forward_tokens(images, mask=hidden, mask_token=self.mask_token)  # (B, 1 + N, D)
        loss = losses.simmim(self.predict(tokens[:, 1:]), patchify(images, vit.patch_size), hidden)
        return StepOutput(loss=loss, representation=tokens[:, 0].detach())
