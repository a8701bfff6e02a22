"""Make views from cached images and parameters: crop, mirror, rotate, color jitter, grayscale, blur, solarize, plugins'
transforms, normalize.

Shapes: B images, N views, n views of a chunk, S pixels on a side of a cached image, o pixels on a side of a view.

On a CPU, views pass through all steps in chunks that stay in the processor's cache, and each step does only what its
views need. Views with the same order of color changes are neighbors. A view has the same bits in any chunk. On other
devices, `device_pixels` does the steps.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from manyview_server.learn.views import blur, color, crop, custom, device_pixels, rotation
from manyview_server.learn.views.crop import Interpolation
from manyview_server.learn.views.draw import HUE, ViewParameters
from manyview_server.learn.views.recipe import NormalizeSettings

VERSION = 2
"""Raised whenever views get other bits than before. A job of an earlier version says so when it continues."""
CPU_CHUNK_PIXELS = 64 * 32 * 32
LARGEST_MATMUL_PX = 32
"""Largest side of cached images that a CPU resizes by matrix products. Larger images are resized one by one."""

SMALLEST_BY_ORDER_PX = 96
"""Smaller views take their color changes together if their hue is at the same place: there are too few pixels of each
order to be worth operations of their own."""
UNCHANGED = 256
"""The group of views without color jitter. Other groups are places of the hue, or orders as four digits of base 4."""


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
    plugins' transforms in `parameters.custom`. On a CPU, images in the layout channels_last take less time.

    Raises:
        ValueError: images that are not uint8 (B, 3, S, S), or PluginBroken.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images must be uint8 (B, 3, S, S), not {images.dtype} {tuple(images.shape)}")
    make = device_pixels.make_pixels if images.device.type != "cpu" else _make_pixels
    return make(
        images,
        parameters,
        size=size,
        interpolation=interpolation,
        custom_settings=custom_settings or {},
        normalize=normalize,
        dtype=dtype,
        memory_format=memory_format,
    )


def _make_pixels(
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
    images = images.contiguous(memory_format=torch.channels_last)
    by_order = size >= SMALLEST_BY_ORDER_PX
    groups = parameters.order @ torch.tensor([64, 16, 4, 1]) if by_order else (parameters.order == HUE).int().argmax(1)
    groups = torch.where(parameters.jitter, groups, UNCHANGED)
    places = groups.argsort(stable=True)
    views = _Views(images, parameters.rows(places), groups[places].tolist(), by_order=by_order)
    is_last = memory_format == torch.channels_last
    found = torch.empty((len(places), size, size, 3) if is_last else (len(places), 3, size, size), dtype=dtype)
    length = max(1, CPU_CHUNK_PIXELS // size**2)
    for first in range(0, len(places), length):
        chunk = range(first, min(first + length, len(places)))
        planes = views.cropped(chunk, size, interpolation)
        views.rotate_(planes, chunk)
        views.change_colors_(planes, chunk)
        views.change_rarely_(planes, chunk)
        for name, settings in sorted(custom_settings.items()):
            views.change_by_plugin_(planes, chunk, name, settings)
        if normalize is not None:
            _normalize_(planes, normalize)
        values = planes.to(dtype).permute((1, 2, 3, 0) if is_last else (1, 0, 2, 3))  # (n, 3, o, o) or (n, o, o, 3)
        # numpy copies whole views: five times as fast as index_copy_. The type of their numbers does not matter.
        _as_bytes(found)[places[chunk.start : chunk.stop].numpy()] = _as_bytes(values.contiguous())
    return found.movedim(3, 1) if is_last else found


class _Views:
    """The steps of the views of a batch, in the order of their color changes, on the planes (3, n, o, o) of a chunk."""

    def __init__(self, images: Tensor, parameters: ViewParameters, groups: list[int], *, by_order: bool) -> None:
        """`groups`: the group of each view, ascending. `by_order`: are they orders, or places of the hue?"""
        p = parameters
        self._images = images
        self._parameters = p
        self._groups = groups
        self._jitter = None if by_order else color.Jitter.of(p.factors, p.order)
        self._image, self._crop = p.image.tolist(), p.crop.tolist()
        self._sigma = p.sigma.tolist()
        is_solarized = p.solarize_from.isfinite()
        self._turned = [_Places(p.quarter_turns == quarters) for quarters in (1, 2, 3)]
        self._rotated = _Places(p.angle != 0)
        self._gray = _Places(p.grayscale)
        self._solarized_before = _Places(is_solarized & p.solarize_before_blur)
        self._blurred = _Places(p.sigma != 0)
        self._solarized = _Places(is_solarized & ~p.solarize_before_blur)
        self._by_plugin = {name: _Places(draws.applies) for name, draws in p.custom.items()}

    def cropped(self, chunk: range, size: int, interpolation: Interpolation) -> Tensor:
        """Return the planes of the chunk: rectangles of the images, resized and mirrored."""
        rows = slice(chunk.start, chunk.stop)
        flips = self._parameters.flip[rows], self._parameters.flip_vertical[rows]
        if self._images.shape[-1] > LARGEST_MATMUL_PX:
            index, crops = self._image[rows], self._crop[rows]
            return crop.resize_one_by_one(self._images, index, crops, *flips, size, interpolation)
        images = self._images.permute(0, 2, 3, 1).index_select(0, self._parameters.image[rows]).permute(0, 3, 1, 2)
        return crop.resize_by_matmul(images, self._parameters.crop[rows], *flips, size, interpolation)

    def rotate_(self, planes: Tensor, chunk: range) -> None:
        """Rotate by quarter turns, then by other angles."""
        for quarters, turned in enumerate(self._turned, 1):
            if at := turned.within(chunk):
                planes[:, at] = planes[:, at].rot90(quarters, (2, 3))
        if at := self._rotated.within(chunk):
            planes[:, at] = rotation.rotate(planes[:, at], self._parameters.angle[chunk.start : chunk.stop][at])

    def change_colors_(self, planes: Tensor, chunk: range) -> None:
        """Change the brightness, contrast, saturation and hue, in the order of each view."""
        for group, of_group in itertools.groupby(chunk, lambda row: self._groups[row]):
            if group == UNCHANGED:
                continue
            first, *others = of_group
            rows = slice(first, first + 1 + len(others))
            changed = planes[:, rows.start - chunk.start : rows.stop - chunk.start]
            if self._jitter is not None:
                color.jitter_(changed, self._jitter.rows(rows), hue_at=group)
            else:
                order = [group >> shift & 3 for shift in (6, 4, 2, 0)]
                color.change_colors_(changed, self._parameters.factors[rows], order)

    def change_rarely_(self, planes: Tensor, chunk: range) -> None:
        """Apply grayscale, blur and solarization, only to the views that have them."""
        for place in self._gray.within(chunk):
            planes[:, place] = color.luma(planes[:, place])
        self._solarize_(planes, chunk, self._solarized_before.within(chunk))
        for place in self._blurred.within(chunk):
            planes[:, place] = blur.blur_view(planes[:, place], self._sigma[chunk.start + place])
        self._solarize_(planes, chunk, self._solarized.within(chunk))

    def change_by_plugin_(self, planes: Tensor, chunk: range, name: str, settings: Any) -> None:
        """Apply a plugin's transform to the views that have it. Raises PluginBroken."""
        if at := self._by_plugin[name].within(chunk):
            numbers = self._parameters.custom[name].numbers[chunk.start : chunk.stop][at]
            planes[:, at] = custom.changed(name, settings, planes[:, at], numbers)

    def _solarize_(self, planes: Tensor, chunk: range, places: list[int]) -> None:
        for place in places:
            threshold = self._parameters.solarize_from[chunk.start + place]
            planes[:, place] = color.solarize(planes[:, place], threshold)


class _Places:
    """The views that have a change."""

    def __init__(self, has_it: Tensor) -> None:
        """`has_it`: (N,) bool."""
        self._rows: list[int] = has_it.nonzero()[:, 0].tolist()

    def within(self, chunk: range) -> list[int]:
        """Return the places in a chunk of the views that have the change."""
        first, end = bisect_left(self._rows, chunk.start), bisect_left(self._rows, chunk.stop)
        return [row - chunk.start for row in self._rows[first:end]]


def _normalize_(planes: Tensor, normalize: NormalizeSettings) -> None:
    for plane, mean, std in zip(planes, normalize.mean, normalize.std, strict=True):
        torch.add(torch.tensor(-mean / std), plane, alpha=1 / std, out=plane)


def _as_bytes(views: Tensor) -> Any:
    """Return the memory of views, (n, bytes)."""
    return views.view(len(views), -1).view(torch.uint8).numpy()
