"""ConvMixer (Trockman and Kolter, "Patches Are All You Need?", arXiv 2201.09792), as a backbone for manyview.

Install it beside the server with `pip install .`; then the server lists it and trains it as "conv_mixer".
"""

from typing import Any

from torch import Tensor, nn

from manyview_server.learn.backbones import Backbone


class ConvMixer(Backbone):
    """Maps images (B, 3, H, W) to features (B, D). `width` and `patch_size` come from the job's configuration."""

    def __init__(self, *, image_size: int, width: float = 1.0, patch_size: int | None = None) -> None:
        super().__init__()
        self.feature_dim = max(8, round(256 * width))
        patch = patch_size or max(1, image_size // 32)
        self.chosen = {"patch_size": patch}
        self.stem = _convolution(3, self.feature_dim, patch, stride=patch)
        self.blocks = nn.ModuleList(_Block(self.feature_dim) for _ in range(8))

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return x.mean(dim=(2, 3))


class _Block(nn.Module):
    """Mixes the places of each channel, then the channels of each place."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.places = _convolution(dim, dim, 5, padding=2, groups=dim)
        self.channels = _convolution(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.channels(x + self.places(x))


def _convolution(in_channels: int, out_channels: int, kernel: int, **options: Any) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, kernel, **options)
    return nn.Sequential(convolution, nn.GELU(), nn.BatchNorm2d(out_channels))
