"""MAE: a network predicts the pixels of an image from a quarter of its patches.

He et al., "Masked Autoencoders Are Scalable Vision Learners", arXiv 2111.06377.
Shapes: B batch, N patches, K of them kept, M = N - K hidden, p patch size, D feature, E width of the decoder.
"""

# ruff: noqa: RUF009 - the fields' defaults are frozen
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from manyview_server.configuration import changed, setting
from manyview_server.learn import losses
from manyview_server.learn.backbones.positions import sines_and_cosines
from manyview_server.learn.backbones.vit import Block, initialise
from manyview_server.learn.encoder import build_encoder
from manyview_server.learn.losses import normalized_patches, patchify
from manyview_server.learn.methods.method import Method, StepOutput, Views
from manyview_server.learn.methods.reconstruction.masked import MaskedImageSettings, mask_ratio, transformer
from manyview_server.learn.modules.masking import split_patches
from manyview_server.learn.schedules import Moment
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views.presets import PRESETS
from manyview_server.learn.views.recipe import ViewSettings

HEAD_DIM = 32
"""Channels of each head of the decoder, as in the paper, which has 16 heads for 512 channels."""


@dataclass(frozen=True, kw_only=True)
class MAESettings(MaskedImageSettings):
    """MAE (arXiv 2111.06377): the pixels of hidden patches are predicted from the few patches that the network sees."""

    method: Literal["mae"] = setting("mae", "Self-supervised method.")
    mask_ratio: float = mask_ratio(0.75)
    decoder_heads: int = setting(
        8, "Heads of the decoder, which has 32 channels for each.", minimum=1, maximum=64, fixed=True
    )
    decoder_depth: int = setting(4, "Blocks of the decoder.", minimum=1, maximum=64, fixed=True)
    normalize_targets: bool = setting(
        True, "Whether each hidden patch is scaled to mean 0 and variance 1 before its pixels are predicted."
    )
    views: ViewSettings = changed(TrainSettings, "views", PRESETS["mae"])

    def split(self, image_ids: Tensor, num_patches: int, *, epoch: int) -> tuple[Tensor, Tensor]:
        """Return the patches that are kept (B, K) and those that are hidden (B, M)."""
        return split_patches(image_ids, num_patches, self.mask_ratio, seed=self.seed, epoch=epoch)

    def hidden_patches(self, image_ids: Tensor, size: int, *, epoch: int) -> Tensor:
        num_patches = (size // self.patch_px) ** 2
        _, hidden = self.split(image_ids, num_patches, epoch=epoch)
        return torch.zeros(len(image_ids), num_patches, dtype=torch.bool).scatter(1, hidden, True)


class MAE(Method):
    """Section 3 of the paper.

    With `normalize_targets`, a network that predicts the mean of every patch has a loss just below the share of patches
    that are not of one color: (E - 1) / E for each of those patches, where E = 3 p p.

    Differs from the paper: the decoder is 256 channels wide and 4 blocks deep, not 512 and 8. The backbones are smaller
    as well.
    """

    def __init__(self, settings: MAESettings) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = build_encoder(settings)
        vit = transformer(self.encoder)
        self.decoder = Decoder(
            vit.feature_dim,
            HEAD_DIM * settings.decoder_heads,
            settings.decoder_depth,
            grid=vit.grid(settings.image_size),
            outputs=3 * vit.patch_size**2,
        )

    def forward_loss(self, views: Views, image_ids: Tensor, moment: Moment) -> StepOutput:
        images, vit = views[0][0], transformer(self.encoder)  # (B, 3, o, o)
        kept, hidden = self.settings.split(image_ids, vit.num_patches(*images.shape[2:]), epoch=moment.image_epoch)
        tokens = vit.forward_tokens(images, kept)  # (B, 1 + K, D)
        predicted = _pick(self.decoder(tokens, kept), hidden)  # (B, M, 3 p p)
        target = _pick(patchify(images, vit.patch_size), hidden)
        if self.settings.normalize_targets:
            target = normalized_patches(target)
        return StepOutput(loss=losses.mae(predicted, target), representation=tokens[:, 0].detach())


class Decoder(nn.Module):
    """Maps the tokens of the patches that were kept (B, 1 + K, D) to the pixels of all patches (B, N, outputs)."""

    positions: Tensor  # (1, 1 + N, E)

    def __init__(self, feature_dim: int, dim: int, depth: int, *, grid: tuple[int, int], outputs: int) -> None:
        super().__init__()
        self.embed = nn.Linear(feature_dim, dim)
        self.mask_token = nn.Parameter(torch.empty(dim))
        self.register_buffer("positions", sines_and_cosines(grid, dim), persistent=False)
        self.blocks = nn.Sequential(*(Block(dim, dim // HEAD_DIM) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.predict = nn.Linear(dim, outputs)
        initialise(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, kept: Tensor) -> Tensor:
        seen = self.embed(tokens)  # (B, 1 + K, E)
        B, N, E = len(tokens), self.positions.shape[1] - 1, seen.shape[2]
        patches = self.mask_token.to(seen.dtype).expand(B, N, E)
        patches = patches.scatter(1, kept[:, :, None].expand(-1, -1, E), seen[:, 1:])
        x = torch.cat([seen[:, :1], patches], dim=1) + self.positions
        predicted: Tensor = self.predict(self.norm(self.blocks(x)))
        return predicted[:, 1:]


def _pick(patches: Tensor, chosen: Tensor) -> Tensor:
    """Return the chosen ones (B, M) of patches (B, N, E): (B, M, E)."""
    return patches.gather(1, chosen[:, :, None].expand(-1, -1, patches.shape[2]))
