"""Random resized crop: antialiased bilinear resampling of a rectangle of each image, mirrored or not.

Shapes: N views, S pixels on a side of the cached image, o pixels on a side of the view.

Both ways give what torchvision's (and Pillow's) ``resized_crop`` with antialias gives, within 1/255. Their results are
color planes (3, N, o, o): each plane is contiguous, which makes the arithmetic that follows faster.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def resize_by_matmul(images: Tensor, crop: Tensor, flip: Tensor, size: int) -> Tensor:
    """Planes (3, N, o, o), float32 in [0, 1], of uint8 images (N, 3, S, S): two products with triangle weights."""
    num_views, channels, cache_size, _ = images.shape
    top_left, lengths = crop[:, :2].T, crop[:, 2:].T
    mirrored = torch.stack([torch.zeros_like(flip), flip])
    # Both axes in one tensor: half as many operations, each with twice the work.
    weights = triangle_weights(top_left.reshape(-1), lengths.reshape(-1), mirrored.view(-1), cache_size, size)
    down, across = weights.view(2, num_views, size, cache_size)

    columns = images.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format)  # (N, S, 3, S)
    rows = torch.bmm(down, columns.view(num_views, cache_size, channels * cache_size)).mul_(1 / 255)
    views = torch.bmm(rows.view(num_views, size * channels, cache_size), across.transpose(1, 2))
    return views.view(num_views, size, channels, size).permute(2, 0, 1, 3).contiguous()


def triangle_weights(start: Tensor, length: Tensor, mirrored: Tensor, cache_size: int, size: int) -> Tensor:
    """(N, o, S) weights with which each of S pixels enters each of o, from `start` over `length` pixels (N,).

    The filter is a triangle as wide as an output pixel (at least one input pixel), cut off at the ends of the crop.
    """
    low, length = start[:, None].float(), length[:, None].float()  # (N, 1)
    output = torch.arange(0.5, size, device=start.device)
    scale = length / size
    center = low + torch.where(mirrored[:, None], size - output, output) * scale  # (N, o)
    reach = scale.clamp_min(1)[:, :, None]  # (N, 1, 1)

    pixel = torch.arange(0.5, cache_size, device=start.device)
    inside = ((pixel > low) & (pixel < low + length)).float()  # (N, S)
    weights = (center[:, :, None] - pixel).abs_()
    torch.sub(reach, weights, out=weights)
    weights.clamp_min_(0).mul_(inside[:, None])
    return weights.div_(weights.sum(2, keepdim=True))


def resize_one_by_one(images: Tensor, index: list[int], crop: list[list[int]], flip: Tensor, size: int) -> Tensor:
    """Planes (3, N, o, o) of the rows `index` of uint8 images (B, 3, S, S), with torchvision's kernel for uint8.

    For CPUs, where large products are slow.
    """
    views = torch.empty(len(index), 3, size, size, dtype=torch.uint8)
    for row, (image, (top, left, height, width)) in enumerate(zip(index, crop, strict=True)):
        rectangle = images[image : image + 1, :, top : top + height, left : left + width]
        rectangle = rectangle.contiguous(memory_format=torch.channels_last)
        views[row] = interpolate(rectangle, (size, size), mode="bilinear", antialias=True, align_corners=False)[0]
    planes = views.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format).mul_(1 / 255)
    mirrored = flip.nonzero()[:, 0]
    planes[:, mirrored] = planes[:, mirrored].flip(3)
    return planes
