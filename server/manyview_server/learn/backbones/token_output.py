"""The tokens of a vision transformer as its output.

Shapes: B images, N patches, D channels of a token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from manyview_server.learn.backbones.backbone import Backbone, NoTokens

CLASS_TOKEN, PATCH_MEAN, BOTH, PATCH_TOKENS = TOKEN_OUTPUTS = (
    "class_token",
    "patch_mean",
    "class_and_patch_mean",
    "patch_tokens",
)


class TokenOutput(nn.Module):
    """Maps images (B, 3, H, W) to class tokens (B, D), the means of the patches (B, D), both (B, 2 D), or all tokens of
    patches, one after the other (B, N D).

    Raises:
        NoTokens: the backbone has no such tokens.
    """

    def __init__(self, backbone: Backbone, output: str, image_size: int) -> None:
        super().__init__()
        assert output in TOKEN_OUTPUTS, output
        self.backbone = backbone
        self._output = output
        was_training = backbone.training
        backbone.eval()
        with torch.no_grad():
            _, patches = backbone.tokens(torch.zeros(1, 3, image_size, image_size))
            self.feature_dim = self(torch.zeros(1, 3, image_size, image_size)).shape[1]
        backbone.train(was_training)
        self.token_dim = patches.shape[2] if output == PATCH_TOKENS else 0
        """D if the output is a list of tokens, or else 0."""

    def forward(self, images: Tensor) -> Tensor:
        first, patches = self.backbone.tokens(images)
        if self._output == PATCH_TOKENS:
            return patches.flatten(1)
        mean = patches.mean(dim=1)
        if self._output == PATCH_MEAN:
            return mean
        if first is None:
            raise NoTokens("it has no class token")
        return first if self._output == CLASS_TOKEN else torch.cat([first, mean], dim=1)
