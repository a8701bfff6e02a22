"""The recipe of a random view: which changes, how often, how strongly.

The defaults are SimCLR's (arXiv 2002.05709, appendix A) for 224 pixels. Everything here is data; `draw` turns it into
parameters of single views and `pixels` into images.
"""

# ruff: noqa: RUF009 - `setting` makes dataclass fields, and their defaults are frozen
from __future__ import annotations

from dataclasses import dataclass

from manyview_server.learn.schema import setting


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """Random resized crop: a rectangle of random area and shape, resized to the training size."""

    scale_min: float = setting(0.08, "Smallest share of the image's area in a crop.", exclusive_minimum=0, maximum=1)
    scale_max: float = setting(1.0, "Largest share of the image's area in a crop.", exclusive_minimum=0, maximum=1)
    ratio_min: float = setting(3 / 4, "Smallest width over height of a crop.", minimum=0.1, maximum=10)
    ratio_max: float = setting(4 / 3, "Largest width over height of a crop.", minimum=0.1, maximum=10)


@dataclass(frozen=True, kw_only=True)
class HorizontalFlipSettings:
    """Mirror image, left to right."""

    probability: float = setting(0.5, "Share of views that are mirrored.", minimum=0, maximum=1)


@dataclass(frozen=True, kw_only=True)
class ColorJitterSettings:
    """Brightness, contrast, saturation and hue by random amounts, in an order drawn for each view."""

    probability: float = setting(0.8, "Share of views whose colors are changed.", minimum=0, maximum=1)
    brightness: float = setting(
        0.8,
        "Brightness is multiplied by a factor from 1 - x to 1 + x (from 0 at least).",
        minimum=0,
        maximum=4,
        needs=("probability", "strength"),
    )
    contrast: float = setting(
        0.8,
        "Contrast is multiplied by a factor from 1 - x to 1 + x (from 0 at least).",
        minimum=0,
        maximum=4,
        needs=("probability", "strength"),
    )
    saturation: float = setting(
        0.8,
        "Saturation is multiplied by a factor from 1 - x to 1 + x (from 0 at least).",
        minimum=0,
        maximum=4,
        needs=("probability", "strength"),
    )
    hue: float = setting(
        0.2,
        "Hue is turned by -x to +x of the color circle; times strength at most 0.5.",
        minimum=0,
        maximum=0.5,
        needs=("probability", "strength"),
    )
    strength: float = setting(1.0, "Multiplies all four amounts at once.", minimum=0, maximum=4, needs=("probability",))


@dataclass(frozen=True, kw_only=True)
class GrayscaleSettings:
    """Luma in all three channels."""

    probability: float = setting(0.2, "Share of views that lose their colors.", minimum=0, maximum=1)


@dataclass(frozen=True, kw_only=True)
class BlurSettings:
    """Gaussian blur of a random width."""

    probability: float = setting(0.5, "Share of views that are blurred.", minimum=0, maximum=1)
    sigma_min: float = setting(
        0.1,
        "Smallest standard deviation of the blur, in pixels of the view.",
        exclusive_minimum=0,
        maximum=16,
        needs=("probability",),
    )
    sigma_max: float = setting(
        2.0,
        "Largest standard deviation of the blur, in pixels of the view.",
        exclusive_minimum=0,
        maximum=16,
        needs=("probability",),
    )


@dataclass(frozen=True, kw_only=True)
class SolarizeSettings:
    """Inversion of the bright pixels."""

    probability: float = setting(0.0, "Share of views that are solarized.", minimum=0, maximum=1)
    threshold: float = setting(
        128.0, "Values from this one on, of 0 to 255, are inverted.", minimum=0, maximum=255, needs=("probability",)
    )


@dataclass(frozen=True, kw_only=True)
class NormalizeSettings:
    """What is subtracted from, then divides, each channel of 0 to 1; the defaults are ImageNet's statistics."""

    mean: tuple[float, float, float] = setting(
        (0.485, 0.456, 0.406), "Subtracted from red, green and blue.", minimum=0, maximum=1
    )
    std: tuple[float, float, float] = setting(
        (0.229, 0.224, 0.225), "Divides red, green and blue.", minimum=0.001, maximum=10
    )


@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """How a random view is made of an image, in this order; the defaults are SimCLR's (arXiv 2002.05709)."""

    crop: CropSettings = setting(CropSettings(), "Random resized crop.")
    horizontal_flip: HorizontalFlipSettings = setting(HorizontalFlipSettings(), "Mirror image, left to right.")
    color_jitter: ColorJitterSettings = setting(ColorJitterSettings(), "Random changes of color.")
    grayscale: GrayscaleSettings = setting(GrayscaleSettings(), "Loss of color.")
    blur: BlurSettings = setting(BlurSettings(), "Gaussian blur.")
    solarize: SolarizeSettings = setting(SolarizeSettings(), "Inversion of the bright pixels.")
    normalize: NormalizeSettings = setting(NormalizeSettings(), "Scaling of the channels, in embedding as in training.")
