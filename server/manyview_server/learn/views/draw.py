"""Parameters of random views, as a pure function of (seed, epoch, image id, view).

Shapes: V views, B images, N = V * B single views (row v * B + b is view v of image b), K numbers drawn for each.

There is no generator and no state (see `counter_random`), so any view can be made again, whatever the batch, the number
of threads or the views before it. The parameters are computed only with exactly rounded arithmetic, so they are equal
on every device, bit for bit.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from manyview_server.learn import counter_random
from manyview_server.learn.views import custom
from manyview_server.learn.views.recipe import ColorJitterSettings, CropSettings, PipelineSettings

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
"""The four changes of color jitter: columns of `ViewParameters.factors`, values in `ViewParameters.order`."""

CROP_TRIES = 10
"""Number of tries, as in torchvision's RandomResizedCrop. If no try fits into an image, it is cropped at its center."""

# The purpose of each of a view's K numbers. Only append: another order would change every view of a resumed job.
_AREA, _RATIO = slice(0, CROP_TRIES), slice(CROP_TRIES, 2 * CROP_TRIES)
_TOP, _LEFT, _FLIP, _JITTER, _ORDER, _GRAYSCALE, _BLUR, _SIGMA, _SOLARIZE = range(2 * CROP_TRIES, 2 * CROP_TRIES + 9)
_FACTORS = slice(_SOLARIZE + 1, _SOLARIZE + 5)
_FLIP_VERTICAL, _QUARTER_TURN, _QUARTERS, _ROTATION, _ANGLE = range(_FACTORS.stop, _FACTORS.stop + 5)
_NUM_DRAWS = _ANGLE + 1


@dataclass(frozen=True, kw_only=True)
class CustomDraws:
    """The random numbers for a plugin's transform, for each of N views."""

    applies: Tensor
    """(N,) bool: whether the transform is applied."""
    numbers: Tensor
    """(N, K) float64, uniform in [0, 1)."""

    def map(self, change: Callable[[Tensor], Tensor]) -> CustomDraws:
        """Apply `change` to both tensors."""
        return CustomDraws(applies=change(self.applies), numbers=change(self.numbers))


@dataclass(frozen=True, kw_only=True)
class ViewParameters:
    """The parameters of N views. The steps are applied in the order of the fields."""

    image: Tensor
    """(N,) int64: the row of the image."""
    crop: Tensor
    """(N, 4) int64: top, left, height, width, in pixels of the cached image."""
    flip: Tensor
    """(N,) bool: mirrored left to right."""
    flip_vertical: Tensor
    """(N,) bool: mirrored top to bottom."""
    quarter_turns: Tensor
    """(N,) int64, 0 to 3: number of counter-clockwise rotations by 90 degrees."""
    angle: Tensor
    """(N,) float32: degrees of counter-clockwise rotation; 0 means none."""
    jitter: Tensor
    """(N,) bool: whether the factors apply."""
    factors: Tensor
    """(N, 4) float32: brightness, contrast, saturation (1 changes nothing), hue (in turns; 0 changes nothing)."""
    order: Tensor
    """(N, 4) int64: the columns of `factors` in the order in which they are applied."""
    grayscale: Tensor
    """(N,) bool: whether the view loses its colors."""
    sigma: Tensor
    """(N,) float32: standard deviation of the blur in pixels of the view; 0 means no blur."""
    solarize_from: Tensor
    """(N,) float32: values from this one on are inverted (values are from 0 to 1); infinity means none."""
    solarize_before_blur: Tensor
    """(N,) bool: whether the solarization comes before the blur."""
    custom: dict[str, CustomDraws] = field(default_factory=dict)
    """The draws of plugins' transforms by name, in the order in which they are applied."""

    def rows(self, rows: Tensor | slice) -> ViewParameters:
        """Return the parameters of some of the views."""
        return self._each(lambda tensor: tensor[rows])

    @classmethod
    def joined(cls, parts: Sequence[ViewParameters]) -> ViewParameters:
        """Join the views of all `parts`, one part after the other. All parts must have the same plugins' transforms."""
        names = [field.name for field in dataclasses.fields(cls) if field.name != "custom"]
        return cls(
            **{name: torch.cat([getattr(part, name) for part in parts]) for name in names},
            custom={
                name: CustomDraws(
                    applies=torch.cat([part.custom[name].applies for part in parts]),
                    numbers=torch.cat([part.custom[name].numbers for part in parts]),
                )
                for name in parts[0].custom
            },
        )

    def to(self, device: torch.device | str) -> ViewParameters:
        """Copy the parameters to a device, without waiting for it."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> ViewParameters:
        names = [field.name for field in dataclasses.fields(self) if field.name != "custom"]
        return ViewParameters(
            **{name: change(getattr(self, name)) for name in names},
            custom={name: draws.map(change) for name, draws in self.custom.items()},
        )


def draw(
    settings: PipelineSettings,
    sizes: Tensor,
    image_ids: Tensor,
    *,
    cache_size: int,
    seed: int,
    epoch: int,
    first_view: int = 0,
) -> ViewParameters:
    """Draw the parameters of the pipeline's views of each image, N = count * B, on the device of `image_ids`.

    Crops are drawn in the geometry of the original image, whose height and width in pixels are `sizes` (B, 2). They are
    then mapped to the square of `cache_size` pixels to which the image was resampled. `first_view` is the number of
    views in earlier pipelines.

    Raises:
        PluginBroken: a transform of `settings.custom` is not installed.
    """
    num_views = settings.count
    views = range(first_view, first_view + num_views)
    uniforms = partial(counter_random.uniforms, image_ids, seed=seed, epoch=epoch, views=views)
    u = uniforms(num_draws=_NUM_DRAWS)  # (V, B, K)
    sizes = sizes.to(device=u.device, dtype=torch.int64)
    batch = torch.arange(len(image_ids), device=u.device)
    u, sizes, image = u.flatten(0, 1), sizes.repeat(num_views, 1), batch.repeat(num_views)

    blur, solarize, rotation = settings.blur, settings.solarize, settings.rotation
    sigma = blur.sigma_min + u[:, _SIGMA] * (blur.sigma_max - blur.sigma_min)
    angle = rotation.degrees_min + u[:, _ANGLE] * (rotation.degrees_max - rotation.degrees_min)
    quarters = 1 + (3 * u[:, _QUARTERS]).long()
    infinity = torch.full_like(sigma, math.inf)
    permutations = torch.tensor(list(itertools.permutations(range(4))), device=u.device)  # (24, 4)
    return ViewParameters(
        image=image,
        crop=_to_cache(_crop(settings.crop, sizes, u), sizes, cache_size),
        flip=u[:, _FLIP] < settings.horizontal_flip.probability,
        flip_vertical=u[:, _FLIP_VERTICAL] < settings.vertical_flip.probability,
        quarter_turns=torch.where(u[:, _QUARTER_TURN] < settings.quarter_turn.probability, quarters, 0),
        angle=torch.where(u[:, _ROTATION] < rotation.probability, angle, 0.0).float(),
        jitter=u[:, _JITTER] < settings.color_jitter.probability,
        factors=_factors(settings.color_jitter, u[:, _FACTORS]),
        order=permutations[(u[:, _ORDER] * len(permutations)).long()],
        grayscale=u[:, _GRAYSCALE] < settings.grayscale.probability,
        sigma=torch.where(u[:, _BLUR] < blur.probability, sigma, 0.0).float(),
        solarize_from=torch.where(u[:, _SOLARIZE] < solarize.probability, solarize.threshold / 255, infinity).float(),
        solarize_before_blur=torch.full_like(image, solarize.before_blur, dtype=torch.bool),
        custom={name: _custom(name, settings.custom[name], uniforms) for name in sorted(settings.custom)},
    )


def _custom(name: str, settings: Any, uniforms: Callable[..., Tensor]) -> CustomDraws:
    """Draw from a stream of this name, so that neither other plugins nor our own steps ever change the numbers."""
    num_draws = custom.transform(name).num_draws
    u = uniforms(num_draws=1 + num_draws, stream=name).flatten(0, 1)  # (N, 1 + K)
    return CustomDraws(applies=u[:, 0] < settings.probability, numbers=u[:, 1:])


def _factors(jitter: ColorJitterSettings, u: Tensor) -> Tensor:
    """Return (N, 4) factors, uniform in [max(0, 1 - x), 1 + x], and in [-x, x] for hue."""
    amounts = [x * jitter.strength for x in (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)]
    low = torch.tensor([*(max(0.0, 1 - x) for x in amounts[:HUE]), -amounts[HUE]], dtype=u.dtype, device=u.device)
    high = torch.tensor([*(1 + x for x in amounts[:HUE]), amounts[HUE]], dtype=u.dtype, device=u.device)
    return (low + u * (high - low)).float()


def _crop(crop: CropSettings, sizes: Tensor, u: Tensor) -> Tensor:
    """Return (N, 4) top, left, height, width in original pixels: torchvision's RandomResizedCrop, all tries at once."""
    height, width = sizes[:, :1], sizes[:, 1:]  # (N, 1)
    area = (height * width) * (crop.scale_min + u[:, _AREA] * (crop.scale_max - crop.scale_min))  # (N, tries)
    log_low, log_high = math.log(crop.ratio_min), math.log(crop.ratio_max)
    ratio = _exp(log_low + u[:, _RATIO] * (log_high - log_low))
    widths = (area * ratio).sqrt().round().long()
    heights = (area / ratio).sqrt().round().long()

    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    rank = torch.arange(CROP_TRIES, 0, -1, device=u.device)
    first = (fits * rank).argmax(1, keepdim=True)  # the ranks differ, so there are no ties
    any_fits = fits.any(1, keepdim=True)
    whole_h, whole_w = _centered(crop, height, width)
    h = torch.where(any_fits, heights.gather(1, first), whole_h)
    w = torch.where(any_fits, widths.gather(1, first), whole_w)
    top = torch.where(any_fits, (u[:, _TOP, None] * (height - h + 1)).long(), (height - h) // 2)
    left = torch.where(any_fits, (u[:, _LEFT, None] * (width - w + 1)).long(), (width - w) // 2)
    return torch.cat([top, left, h, w], dim=1)


def _centered(crop: CropSettings, height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest height and width whose ratio is within the bounds."""
    ratio = width.double() / height
    h = torch.where(ratio < crop.ratio_min, (width / crop.ratio_min).round().long(), height)
    w = torch.where(ratio > crop.ratio_max, (height * crop.ratio_max).round().long(), width)
    return torch.minimum(h, height).clamp_min(1), torch.minimum(w, width).clamp_min(1)


def _to_cache(crop: Tensor, sizes: Tensor, cache_size: int) -> Tensor:
    """Map rectangles to a square of `cache_size` pixels. Edges go to the nearest pixels, at least one apart."""
    start, length = crop[:, :2], crop[:, 2:]
    low = (2 * start * cache_size + sizes) // (2 * sizes)
    high = (2 * (start + length) * cache_size + sizes) // (2 * sizes)
    low = low.clamp_max(cache_size - 1)
    return torch.cat([low, (high - low).clamp_min(1)], dim=1)


def _exp(x: Tensor) -> Tensor:
    """Compute e^x by a Taylor series, to 1e-13 for |x| < 3. Unlike torch.exp, the last bit is the same on every
    device."""
    x = x / 16
    series = torch.ones_like(x)
    for n in range(11, 0, -1):
        series = 1 + x / n * series
    for _ in range(4):
        series = series * series
    return series
