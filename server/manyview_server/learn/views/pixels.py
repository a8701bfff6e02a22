"""Make views from cached images and parameters: crop, mirror, rotate, color jitter, grayscale, blur, solarize, plugins'
transforms, normalize.

Shapes: B images, N views, S pixels on a side of a cached image, o pixels on a side of a view.

Views pass through all steps in chunks that stay in the processor's cache. A chunk holds views whose hue is turned at
the same place of their order of changes, so that no work is wasted. The grouping is computed on the host, where the
parameters are, so it never waits for a device.
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

CPU_CHUNK_PIXELS = 64 * 32 * 32
CUDA_CHUNK_PIXELS = 1 << 26
LARGEST_MATMUL_PX = 64
"""Largest side of cached images that a CPU resizes by matrix products. Larger images are resized one by one."""

UNCHANGED = 4
"""The group of views without color jitter. Views of groups 0 to 3 have the hue at that place of their order."""


def apply(
    images: Tensor,
    parameters: ViewParameters,
    *,
    size: int,
    interpolation: Interpolation = "bilinear",
    custom_settings: Mapping[str, Any] | None = None,
    normalize: NormalizeSettings | None = None,
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Make views (N, 3, o, o), o = `size`, of uint8 `images` (B, 3, S, S), on their device. Values are in [0, 1] unless
    normalized.

    The `parameters` must be on the CPU, whatever the device of the images. `custom_settings` are the settings of the
    plugins' transforms in `parameters.custom`.

    Raises:
        ValueError: images that are not uint8 (B, 3, S, S), or PluginBroken.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images must be uint8 (B, 3, S, S), not {images.dtype} {tuple(images.shape)}")
    rows, counts = _grouped(parameters)
    host = parameters.rows(rows)
    here, places = host.to(images.device), rows.to(images.device, non_blocking=True)
    jitter = color.Jitter.of(here.factors, here.order)
    channel_axis = 3 if memory_format == torch.channels_last else 1
    shape = [len(rows), size, size]
    shape.insert(channel_axis, 3)
    views = torch.empty(shape, dtype=dtype, device=images.device)
    for group, chunk in _chunks(counts, _chunk_length(images, size)):
        planes = _cropped(images, host, here, chunk, size, interpolation)
        _rotate_(planes, host, here, chunk)
        if group != UNCHANGED:
            color.jitter_(planes, jitter.rows(chunk), hue_at=group)
        _rare_changes_(planes, host, here, chunk)
        for name, settings in sorted((custom_settings or {}).items()):
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


def _chunk_length(images: Tensor, size: int) -> int:
    """Return the number of views in a chunk. On a CPU a chunk stays in its cache; on a device each view copies its
    whole image."""
    if images.device.type == "cpu":
        return max(1, CPU_CHUNK_PIXELS // size**2)
    return max(1, CUDA_CHUNK_PIXELS // max(size, images.shape[-1]) ** 2)


def _chunks(counts: list[int], length: int) -> Iterator[tuple[int, slice]]:
    """Yield (group, rows): slices of at most `length` rows of one group."""
    end = 0
    for group, count in enumerate(counts):
        start, end = end, end + count
        for first in range(start, end, length):
            yield group, slice(first, min(first + length, end))


def _cropped(
    images: Tensor,
    host: ViewParameters,
    here: ViewParameters,
    rows: slice,
    size: int,
    interpolation: Interpolation,
) -> Tensor:
    if images.device.type == "cpu" and images.shape[-1] > LARGEST_MATMUL_PX:
        host = host.rows(rows)
        flips = host.flip, host.flip_vertical
        return crop.resize_one_by_one(images, host.image.tolist(), host.crop.tolist(), *flips, size, interpolation)
    here = here.rows(rows)
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
