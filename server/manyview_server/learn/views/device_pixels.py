"""Make views on a device: the steps of `pixels`, each in few and large operations.

Shapes: B images, N views, S pixels on a side of a cached image, o pixels on a side of a view.

A chunk holds views whose hue is turned at the same place of their order of changes, so that no work is wasted. The
grouping is computed on the host, where the parameters are, so it never waits for a device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from manyview_server.learn.views import blur, color, crop, custom, rotation
from manyview_server.learn.views.crop import Interpolation
from manyview_server.learn.views.draw import HUE, ViewParameters
from manyview_server.learn.views.recipe import NormalizeSettings

CHUNK_PIXELS = 1 << 26
"""The pixels of a chunk. Each view counts with its whole image, which is copied."""

UNCHANGED = 4
"""The group of views without color jitter. Views of groups 0 to 3 have the hue at that place of their order."""


def make_pixels(
    images: Tensor,
    parameters: ViewParameters,
    *,
    size: int,
    interpolation: Interpolation,
    custom_settings: Mapping[str, Any],
    normalize: NormalizeSettings | None,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> Tensor:
    """Make views (N, 3, o, o) as `pixels.apply` does. Never waits for the device. Raises PluginBroken."""
    rows, counts = _grouped(parameters)
    host = parameters.rows(rows)
    here, places = host.to(images.device), rows.to(images.device, non_blocking=True)
    jitter = color.Jitter.of(here.factors, here.order)
    channel_axis = 3 if memory_format == torch.channels_last else 1
    shape = [len(rows), size, size]
    shape.insert(channel_axis, 3)
    views = torch.empty(shape, dtype=dtype, device=images.device)
    for group, chunk in _chunks(counts, max(1, CHUNK_PIXELS // max(size, images.shape[-1]) ** 2)):
        planes = _cropped(images, here.rows(chunk), size, interpolation)
        _rotate_(planes, host, here, chunk)
        if group != UNCHANGED:
            color.jitter_(planes, jitter.rows(chunk), hue_at=group)
        _rare_changes_(planes, host, here, chunk)
        for name, settings in sorted(custom_settings.items()):
            _custom_(planes, host, here, chunk, name, settings)
        if normalize is not None:
            _normalize_(planes, normalize)
        views.index_copy_(0, places[chunk], torch.stack(planes.unbind(), channel_axis).to(dtype))
    return views.movedim(channel_axis, 1)


def _grouped(parameters: ViewParameters) -> tuple[Tensor, list[int]]:
    """Return the rows ordered by group, gray views last in each group, and the size of each group."""
    hue_at = (parameters.order == HUE).int().argmax(1)
    group = torch.where(parameters.jitter, hue_at, UNCHANGED)
    rows = (2 * group + parameters.grayscale).argsort(stable=True)
    return rows, group.bincount(minlength=UNCHANGED + 1).tolist()


def _chunks(counts: list[int], length: int) -> Iterator[tuple[int, slice]]:
    """Yield (group, rows): slices of at most `length` rows of one group."""
    end = 0
    for group, count in enumerate(counts):
        start, end = end, end + count
        for first in range(start, end, length):
            yield group, slice(first, min(first + length, end))


def _cropped(images: Tensor, here: ViewParameters, size: int, interpolation: Interpolation) -> Tensor:
    flips = here.flip, here.flip_vertical
    return crop.resize_by_matmul(images.index_select(0, here.image), here.crop, *flips, size, interpolation)


def _rotate_(planes: Tensor, host: ViewParameters, here: ViewParameters, rows: slice) -> None:
    """Rotate by quarter turns, then by other angles, only the views that have them."""
    for quarters in (1, 2, 3):
        if len(turned := (host.quarter_turns[rows] == quarters).nonzero()[:, 0]):
            at = turned.to(planes.device, non_blocking=True)
            planes[:, at] = planes[:, at].rot90(quarters, (2, 3))
    if len(turned := host.angle[rows].nonzero()[:, 0]):
        at = turned.to(planes.device, non_blocking=True)
        planes[:, at] = rotation.rotate(planes[:, at], here.angle[rows][at])


def _rare_changes_(planes: Tensor, host: ViewParameters, here: ViewParameters, rows: slice) -> None:
    """Apply grayscale, blur and solarization, only to the views that have them."""
    first_gray = planes.shape[1] - int(host.grayscale[rows].count_nonzero())
    planes[:, first_gray:] = color.luma(planes[:, first_gray:])
    solarized, before = host.solarize_from[rows].isfinite(), host.solarize_before_blur[rows]
    _solarize_(planes, here, rows, solarized & before)
    sigma = host.sigma[rows]
    if len(blurred := sigma.nonzero()[:, 0]):
        at = blurred.to(planes.device, non_blocking=True)
        planes[:, at] = blur.blur(planes[:, at], here.sigma[rows][at], float(sigma.max()))
    _solarize_(planes, here, rows, solarized & ~before)


def _custom_(planes: Tensor, host: ViewParameters, here: ViewParameters, rows: slice, name: str, settings: Any) -> None:
    if len(which := host.custom[name].applies[rows].nonzero()[:, 0]):
        at = which.to(planes.device, non_blocking=True)
        planes[:, at] = custom.changed(name, settings, planes[:, at], here.custom[name].numbers[rows][at])


def _solarize_(planes: Tensor, here: ViewParameters, rows: slice, which: Tensor) -> None:
    if len(solarized := which.nonzero()[:, 0]):
        at = solarized.to(planes.device, non_blocking=True)
        planes[:, at] = color.solarize(planes[:, at], here.solarize_from[rows][at, None, None])


def _normalize_(planes: Tensor, normalize: NormalizeSettings) -> None:
    for plane, mean, std in zip(planes, normalize.mean, normalize.std, strict=True):
        plane.sub_(mean).mul_(1 / std)
