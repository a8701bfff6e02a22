"""Random resized crop: antialiased resampling of a rectangle of each image, bilinear or bicubic, mirrored or not.

Shapes: N views, S pixels on a side of the cached image, o pixels on a side of the view.

Both functions agree with torchvision's (and Pillow's) ``resized_crop`` with antialias within 1/255. They return color
planes (3, N, o, o): each plane is contiguous, which makes the arithmetic that follows faster.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

Interpolation = Literal["bilinear", "bicubic"]

CUBIC = -0.5
"""The parameter of Keys' cubic kernel (IEEE ASSP 1981) in Pillow, and in torch with antialias."""


def resize_by_matmul(
    images: Tensor,
    crop: Tensor,
    flip: Tensor,
    flip_vertical: Tensor,
    size: int,
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """Crop and resize uint8 images (N, 3, S, S) to planes (3, N, o, o), float32 in [0, 1]: one matrix product along
    each axis."""
    num_views, channels, cache_size, _ = images.shape
    top_left, lengths = crop[:, :2].T, crop[:, 2:].T
    mirrored = torch.stack([flip_vertical, flip])
    # Both axes in one tensor: half as many operations, each with twice the work.
    weights = resampling_weights(
        top_left.reshape(-1), lengths.reshape(-1), mirrored.view(-1), cache_size, size, interpolation
    )
    down, across = weights.view(2, num_views, size, cache_size)

    columns = images.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format)  # (N, S, 3, S)
    rows = torch.bmm(columns.view(num_views, cache_size * channels, cache_size), across.transpose(1, 2)).mul_(1 / 255)
    if interpolation == "bicubic":
        rows.clamp_(0, 1)  # a cubic kernel has negative lobes, and Pillow keeps bytes between its two passes
    views = torch.bmm(down, rows.view(num_views, cache_size, channels * size))
    planes = views.view(num_views, size, channels, size).permute(2, 0, 1, 3).contiguous()
    return planes.clamp_(0, 1) if interpolation == "bicubic" else planes


def resampling_weights(
    start: Tensor,
    length: Tensor,
    mirrored: Tensor,
    cache_size: int,
    size: int,
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """Return (N, o, S), the weight of each of S pixels in each of o, for crops from `start` over `length` pixels (N,).

    The kernel, a triangle or a cubic, is scaled to the width of an output pixel (at least one input pixel) and cut off
    at the ends of the crop.
    """
    low, length = start[:, None].float(), length[:, None].float()  # (N, 1)
    output = torch.arange(0.5, size, device=start.device)
    scale = length / size
    center = low + torch.where(mirrored[:, None], size - output, output) * scale  # (N, o)
    reach = scale.clamp_min(1)[:, :, None]  # (N, 1, 1)

    pixel = torch.arange(0.5, cache_size, device=start.device)
    inside = ((pixel > low) & (pixel < low + length)).float()  # (N, S)
    weights = (center[:, :, None] - pixel).abs_()
    if interpolation == "bicubic":
        weights = _cubic(weights.div_(reach))
    else:
        torch.sub(reach, weights, out=weights)
        weights.clamp_min_(0)
    weights.mul_(inside[:, None])
    return weights.div_(weights.sum(2, keepdim=True))


def _cubic(x: Tensor) -> Tensor:
    """Evaluate Keys' kernel at distances x >= 0, in units of its width: two cubics, 0 from 2 on."""
    a = CUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def resize_one_by_one(
    images: Tensor,
    index: list[int],
    crop: list[list[int]],
    flip: Tensor,
    flip_vertical: Tensor,
    size: int,
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """Crop and resize the rows `index` of uint8 images (B, 3, S, S) to planes (3, N, o, o), with torchvision's kernel
    for uint8. Use this on CPUs, where large products are slow. Images in the layout channels_last are not copied.
    """
    views = torch.empty(len(index), size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    mirrored = zip(flip.tolist(), flip_vertical.tolist(), strict=True)
    for row, (image, (top, left, height, width), axes) in enumerate(zip(index, crop, mirrored, strict=True)):
        rectangle = images[image : image + 1, :, top : top + height, left : left + width]
        rectangle = rectangle.contiguous(memory_format=torch.channels_last)
        view = interpolate(rectangle, (size, size), mode=interpolation, antialias=True, align_corners=False)
        if any(axes):  # bytes are mirrored faster than floats
            view = view.flip([axis for axis, is_mirrored in zip((3, 2), axes, strict=True) if is_mirrored])
        views[row] = view[0]
    return views.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format).mul_(1 / 255)
