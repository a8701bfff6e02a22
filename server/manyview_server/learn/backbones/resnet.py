"""Residual networks, with the stem that suits the image size.

Shapes: B batch, H and W pixels, D feature width.

He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385, in torchvision's form (the stride of a
bottleneck sits on its 3x3 convolution) and with torchvision's parameter names: the state_dict of ``resnet18`` with the
``imagenet`` stem loads into ``torchvision.models.resnet18()``, apart from the classifier ``fc``.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from manyview_server.learn.backbones.backbone import Backbone

Stem = Literal["imagenet", "small"]
STEMS: tuple[Stem, ...] = ("imagenet", "small")

MAX_WIDTH = 8
SMALLEST_IMAGENET_STEM_PX = 64
"""Smallest image size for which the stem of the paper leaves at least 2 x 2 positions for the last stage."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (paper, figure 2)."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _projection_shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return F.relu(y, inplace=True)


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up by four, and a shortcut (paper, figure 5)."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _projection_shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return F.relu(y, inplace=True)


def _projection_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class ResNet(Backbone):
    """A residual network without classifier. It maps images (B, 3, H, W) to features (B, D) by global average pooling.

    ``stem="small"`` is the paper's CIFAR stem, a 3x3 convolution of stride 1 and no max-pooling; ``"imagenet"`` is the
    7x7 of stride 2 with max-pooling. Both end in ReLU. Any H and W from 1 pixel on are accepted.

    ``stem_relu=False`` leaves out the ReLU of the small stem. lightly's CIFAR-10 benchmarks, and their published
    figures, use such networks: they are assembled from the modules of a ResNet, and that ReLU is not a module.
    """

    left_aside = ("fc",)

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        *,
        image_size: int = 224,
        width: float = 1.0,
        stem: Stem | Literal["auto"] = "auto",
        stem_relu: bool = True,
    ) -> None:
        super().__init__()
        stem = choose_stem(image_size) if stem == "auto" else stem
        if stem not in STEMS:
            raise ValueError(f"unknown stem {stem!r}; known: auto, {', '.join(STEMS)}")
        if not stem_relu and stem != "small":
            raise ValueError(f"stem_relu: only the small stem can be without its ReLU; the stem is {stem!r}")
        if not 0 < width <= MAX_WIDTH:
            raise ValueError(f"width must be above 0 and at most {MAX_WIDTH}, not {width}")
        self.chosen = {"stem": stem}
        self.stem_relu = stem_relu
        stem_channels, *stage_channels = (_scaled(channels, width) for channels in (64, 64, 128, 256, 512))
        if stem == "small":
            self.conv1 = nn.Conv2d(3, stem_channels, 3, 1, padding=1, bias=False)
            self.maxpool: nn.Module = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(3, stem_channels, 7, 2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.bn1 = nn.BatchNorm2d(stem_channels)

        stages = []
        in_channels = stem_channels
        for channels, depth, stride in zip(stage_channels, depths, (1, 2, 2, 2), strict=True):
            blocks = []
            for index in range(depth):
                blocks.append(block(in_channels, channels, stride if index == 0 else 1))
                in_channels = channels * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.feature_dim = in_channels
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.bn1(self.conv1(images))
        x = self.maxpool(F.relu(x, inplace=True) if self.stem_relu else x)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        # A plain mean over both axes: on the CPU in channels_last, its backward is faster than adaptive_avg_pool2d's.
        features: Tensor = x.mean(dim=(2, 3))  # (B, D)
        return features


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _scaled(channels: int, width: float) -> int:
    """Return channels times width, rounded to a multiple of 8 (good for vector units and tensor cores), at least 8."""
    return max(8, round(channels * width / 8) * 8)


def choose_stem(image_size: int) -> Stem:
    """Return the stem for square images of `image_size` pixels: ``small`` below 64, otherwise ``imagenet``.

    On CIFAR-10 the 7x7 stem of stride 2 reaches 76.5 %, and the 3x3 stem 84.7 % (SimCLR, ResNet-18).
    """
    return "small" if image_size < SMALLEST_IMAGENET_STEM_PX else "imagenet"
