"""The recipe of random views: pipelines, each with its changes, their probabilities and their strengths.

By default a pipeline only crops. `presets` has the recipes of the papers. Everything here is data: `draw` turns it into
the parameters of single views, and `pixels` turns these into images.
"""

# ruff: noqa: RUF009 - `setting` makes dataclass fields, and their defaults are frozen
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from manyview_server.configuration import setting, settings_by_name
from manyview_server.configuration.cross_field_rules import view_size
from manyview_server.learn.views import custom as plugins


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """Random resized crop: a rectangle of random area and shape, resized to the training size."""

    scale_min: float = setting(
        0.08, "Smallest share of the image's area in a crop.", exclusive_minimum=0, maximum=1, at_most="scale_max"
    )
    scale_max: float = setting(1.0, "Largest share of the image's area in a crop.", exclusive_minimum=0, maximum=1)
    ratio_min: float = setting(
        3 / 4, "Smallest width over height of a crop.", minimum=0.1, maximum=10, at_most="ratio_max"
    )
    ratio_max: float = setting(4 / 3, "Largest width over height of a crop.", minimum=0.1, maximum=10)
    interpolation: Literal["bilinear", "bicubic"] = setting(
        "bilinear", "Kernel with which a crop is resized, antialiased."
    )


@dataclass(frozen=True, kw_only=True)
class HorizontalFlipSettings:
    """Mirror image, left to right."""

    probability: float = setting(0.0, "Probability that a view is mirrored left to right.", minimum=0, maximum=1)


@dataclass(frozen=True, kw_only=True)
class VerticalFlipSettings:
    """Mirror image, top to bottom."""

    probability: float = setting(0.0, "Probability that a view is mirrored top to bottom.", minimum=0, maximum=1)


@dataclass(frozen=True, kw_only=True)
class QuarterTurnSettings:
    """Rotation by 90, 180 or 270 degrees, each as likely as the others."""

    probability: float = setting(0.0, "Probability that a view is turned.", minimum=0, maximum=1)


@dataclass(frozen=True, kw_only=True)
class RotationSettings:
    """Rotation by any angle around the center; pixels from outside the image are black."""

    probability: float = setting(0.0, "Probability that a view is rotated.", minimum=0, maximum=1)
    degrees_min: float = setting(
        -30.0,
        "Smallest angle, counter-clockwise.",
        minimum=-180,
        maximum=180,
        needs=("probability",),
        at_most="degrees_max",
    )
    degrees_max: float = setting(
        30.0, "Largest angle, counter-clockwise.", minimum=-180, maximum=180, needs=("probability",)
    )


@dataclass(frozen=True, kw_only=True)
class ColorJitterSettings:
    """Brightness, contrast, saturation and hue by random amounts, in an order drawn for each view."""

    probability: float = setting(0.0, "Probability that the colors of a view are changed.", minimum=0, maximum=1)
    brightness: float = setting(
        0.8,
        "Brightness is multiplied by a factor from 1 - x to 1 + x, but at least 0.",
        minimum=0,
        maximum=4,
        needs=("probability", "strength"),
    )
    contrast: float = setting(
        0.8,
        "Contrast is multiplied by a factor from 1 - x to 1 + x, but at least 0.",
        minimum=0,
        maximum=4,
        needs=("probability", "strength"),
    )
    saturation: float = setting(
        0.8,
        "Saturation is multiplied by a factor from 1 - x to 1 + x, but at least 0.",
        minimum=0,
        maximum=4,
        needs=("probability", "strength"),
    )
    hue: float = setting(
        0.2,
        "Hue is turned by -x to +x of the color circle; x times strength is at most 0.5.",
        minimum=0,
        maximum=0.5,
        needs=("probability", "strength"),
    )
    strength: float = setting(1.0, "Multiplies all four amounts at once.", minimum=0, maximum=4, needs=("probability",))


@dataclass(frozen=True, kw_only=True)
class GrayscaleSettings:
    """Conversion to gray: luma in all three channels."""

    probability: float = setting(0.0, "Probability that a view is converted to grayscale.", minimum=0, maximum=1)


@dataclass(frozen=True, kw_only=True)
class BlurSettings:
    """Gaussian blur of a random width."""

    probability: float = setting(0.0, "Probability that a view is blurred.", minimum=0, maximum=1)
    sigma_min: float = setting(
        0.1,
        "Smallest standard deviation of the blur, in pixels of the view.",
        exclusive_minimum=0,
        maximum=16,
        needs=("probability",),
        at_most="sigma_max",
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

    probability: float = setting(0.0, "Probability that a view is solarized.", minimum=0, maximum=1)
    threshold: float = setting(
        128.0,
        "Values from this one on are inverted; values are from 0 to 255.",
        minimum=0,
        maximum=255,
        needs=("probability",),
    )
    before_blur: bool = setting(
        False, "Whether the inversion comes before the blur instead of after it.", needs=("probability",)
    )


@dataclass(frozen=True, kw_only=True)
class NormalizeSettings:
    """Mean and standard deviation by which channels from 0 to 1 are normalized; the defaults are ImageNet's
    statistics."""

    mean: tuple[float, float, float] = setting(
        (0.485, 0.456, 0.406), "Subtracted from red, green and blue.", minimum=0, maximum=1
    )
    std: tuple[float, float, float] = setting(
        (0.229, 0.224, 0.225), "Divides red, green and blue.", minimum=0.001, maximum=10
    )


@dataclass(frozen=True, kw_only=True)
class PipelineSettings:
    """A pipeline that makes `count` views of an image by the changes whose probability is above 0, in this order."""

    count: int = setting(1, "Number of views made by this pipeline.", minimum=1, maximum=64)
    size_fraction: float = setting(
        1.0,
        "Width and height of the view as a share of image_size, to the nearest 4, 8 or 16 pixels.",
        minimum=0.1,
        maximum=1,
    )
    crop: CropSettings = setting(CropSettings(), "Random resized crop.")
    horizontal_flip: HorizontalFlipSettings = setting(HorizontalFlipSettings(), "Mirror image, left to right.")
    vertical_flip: VerticalFlipSettings = setting(VerticalFlipSettings(), "Mirror image, top to bottom.")
    quarter_turn: QuarterTurnSettings = setting(QuarterTurnSettings(), "Rotation by 90, 180 or 270 degrees.")
    rotation: RotationSettings = setting(RotationSettings(), "Rotation by any angle.")
    color_jitter: ColorJitterSettings = setting(ColorJitterSettings(), "Random changes of color.")
    grayscale: GrayscaleSettings = setting(GrayscaleSettings(), "Conversion to grayscale.")
    blur: BlurSettings = setting(BlurSettings(), "Gaussian blur.")
    solarize: SolarizeSettings = setting(SolarizeSettings(), "Inversion of the bright pixels.")
    custom: Mapping[str, Any] = settings_by_name(
        plugins.settings_classes,
        "Changes that installed packages add, applied in the order of their names.",
        plugins.GROUP,
    )

    def size(self, image_size: int) -> int:
        """Return the side of the view in pixels: see `cross_field_rules.view_size`."""
        return view_size(image_size, self.size_fraction)


@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """The views of an image: those of the first pipeline, then those of the next."""

    pipelines: tuple[PipelineSettings, ...] = setting(
        (PipelineSettings(count=2),), "Pipelines that make the views, in the order of the views."
    )
    normalize: NormalizeSettings = setting(
        NormalizeSettings(), "Scaling of the channels, for embedding and for training."
    )

    @property
    def num_views(self) -> int:
        """The number of views of all pipelines."""
        return sum(pipeline.count for pipeline in self.pipelines)
