"""Vision transformers. Methods may hide some of the patches.

Shapes: B batch, H and W pixels, p patch size, h x w the grid of patches, N = h w patches, K of them kept, D feature.

Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929, in timm's form and with its parameter names: the
state_dict of ``vit_base`` with patches of 16 at 224 pixels loads into ``timm.create_model("vit_base_patch16_224")``,
apart from the classifier ``head``, as do the encoders that MAE's and DINO's authors published into ours.

Differs from the paper: positions are fixed 2-D sines and cosines, as in MAE (arXiv 2111.06377, appendix A.1) and MoCo
v3 (arXiv 2104.02057), and not learned: if most patches are hidden, and in short trainings, there is little to learn
them from. They are part of the state_dict, so that a training can start from a network whose positions were learned.
Differs from the paper: linear layers are initialised as in MAE, by Glorot's rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manyview_server.configuration.networks.patch_size import choose_patch_size
from manyview_server.learn.backbones import positions
from manyview_server.learn.backbones.backbone import Backbone

HEAD_DIM = 64
MAX_WIDTH = 8


class VisionTransformer(Backbone):
    """Maps images (B, 3, H, W), H and W multiples of the patch size, to the class token (B, D) after the last norm.

    Args:
        num_heads: number of heads of 64 channels each; D is 64 * num_heads * width.
        image_size: the positions are made for its grid. For images of another size they are resampled.
        patch_size: p; None chooses it from `image_size`, see `choose_patch_size`.

    Raises:
        ValueError: `image_size` is not a multiple of the patch size, or `width` is outside (0, 8].
    """

    left_aside = (
        *("head", "head_dist", "fc_norm"),
        *("mask_token", "decoder_embed", "decoder_pos_embed", "decoder_blocks", "decoder_norm", "decoder_pred"),
    )

    def __init__(
        self,
        num_heads: int,
        depth: int = 12,
        *,
        image_size: int = 224,
        patch_size: int | None = None,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < width <= MAX_WIDTH:
            raise ValueError(f"width must be above 0 and at most {MAX_WIDTH}, not {width}")
        num_heads = max(1, round(num_heads * width))
        self.patch_size = choose_patch_size(image_size) if patch_size is None else patch_size
        self.chosen = {"patch_size": self.patch_size}
        self.embed_dim = self.feature_dim = dim = HEAD_DIM * num_heads
        self.base_grid = self.grid(image_size, image_size)
        self.patch_embed = PatchEmbedding(self.patch_size, dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", positions.sines_and_cosines(self.base_grid, dim))  # (1, 1 + N, D)
        self.blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        initialise(self)
        nn.init.normal_(self.cls_token, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_tokens(images)[:, 0]

    def tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.forward_tokens(images)
        return found[:, 0], found[:, 1:]

    def forward_tokens(
        self,
        images: Tensor,
        keep: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        """Return all tokens after the last norm, the class token first: (B, 1 + N, D), or (B, 1 + K, D) with `keep`.

        Patches are counted row by row. Hide them either by leaving them out or by replacing them with `mask_token`.

        Args:
            images: (B, 3, H, W).
            keep: (B, K) int64, the patches that go through the network, in this order (MAE, arXiv 2111.06377).
            mask: (B, N) bool, true for patches that `mask_token` replaces before positions are added (SimMIM, arXiv
                2111.09886).
            mask_token: (D,), or a shape that broadcasts to (B, N, D).
        """
        assert keep is None or mask is None, "give keep or mask, not both"
        assert (mask is None) == (mask_token is None), "give both mask and mask_token, or neither"
        grid = self.grid(*images.shape[2:])
        x = self.patch_embed(images)  # (B, N, D)
        if mask is not None and mask_token is not None:
            x = torch.where(mask[:, :, None], mask_token.to(x.dtype), x)
        places = positions.resampled(self.pos_embed, self.base_grid, grid)
        x = x + places[:, 1:]  # under autocast this sum is float32, and the blocks add to it
        if keep is not None:
            x = x.gather(1, keep[:, :, None].expand(-1, -1, x.shape[2]))  # (B, K, D)
        first = (self.cls_token + places[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([first, x], dim=1)
        for block in self.blocks:
            x = block(x)
        tokens: Tensor = self.norm(x)
        return tokens

    def grid(self, height: int, width: int | None = None) -> tuple[int, int]:
        """Return the rows and columns of patches in an image of `height` x `width` pixels; without `width` it is
        square.

        Raises:
            ValueError: a side is not a multiple of the patch size. The message names the nearest multiples.
        """
        patch = self.patch_size
        for side in (height, height if width is None else width):
            if side % patch or side == 0:
                below, above = side // patch * patch, (side // patch + 1) * patch
                nearest = f"{below} or {above}" if below else f"{above}"
                raise ValueError(f"image_size: {side} pixels are no multiple of patch_size {patch}; nearest: {nearest}")
        return height // patch, (height if width is None else width) // patch

    def num_patches(self, height: int, width: int | None = None) -> int:
        """Return N of an image of that size; see `grid`."""
        return math.prod(self.grid(height, width))

    def fitted(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Drop the layers that are `left_aside`, and resample the positions of another square grid to ours."""
        fitted = super().fitted(tensors)
        if "pos_embed" in fitted:
            fitted["pos_embed"] = positions.fitted(fitted["pos_embed"], self.pos_embed)
        return fitted


class PatchEmbedding(nn.Module):
    """Maps each patch of p x p pixels through the same linear layer: (B, 3, H, W) to (B, N, D)."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, patch_size)
        nn.init.xavier_uniform_(self.proj.weight.view(dim, -1))  # because it is a linear layer
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)

    def forward(self, images: Tensor) -> Tensor:
        patches: Tensor = self.proj(images)
        return patches.flatten(2).transpose(1, 2)


class Block(nn.Module):
    """Attention and a two-layer perceptron, each after a layer norm and with a shortcut (paper, equations 2, 3)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Perceptron(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x


class Attention(nn.Module):
    """Multi-head self-attention (paper, appendix A): (B, N, D) to (B, N, D)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1))  # (B, N, 3, heads, D / heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)  # (B, heads, N, D / heads)
        mixed: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return mixed


class Perceptron(nn.Module):
    """D to 4 D to D, with GELU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


def initialise(network: nn.Module) -> None:
    """Initialise linear layers by Glorot's rule with biases of 0, as in MAE (arXiv 2111.06377, appendix A.1)."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
