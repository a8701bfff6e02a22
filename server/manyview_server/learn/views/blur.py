"""Gaussian blur with a width for each view, as products with banded matrices.

Shapes: N views, o pixels on a side, R reach of the kernel.

A device blurs all views by two products with whole matrices. On a CPU that would be mostly products with zeros: there,
each view is cut into strips, which all have the same small matrix.

This is a true Gaussian, and edge pixels are repeated outside the image. On photographs, Pillow's three box blurs differ
from it by at most 6/255 away from the edges, and by 1/255 on average.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

REACH_SIGMAS = 4
"""The kernel ends at this many sigmas. The weights left out are below 1e-4."""
STRIP_PX = 16
"""The rows of a strip. At 224 pixels, strips of 32 rows take 1.25 times as long, and whole matrices five times."""


def blur(planes: Tensor, sigma: Tensor, sigma_max: float) -> Tensor:
    """Blur color planes (3, N, o, o) by `sigma` (N,) pixels, none of which is above `sigma_max`."""
    kernel = gaussian_matrix(sigma, planes.shape[-1], math.ceil(REACH_SIGMAS * sigma_max))  # (N, o, o)
    return torch.stack([torch.bmm(torch.bmm(kernel, plane), kernel.transpose(1, 2)) for plane in planes])


def gaussian_matrix(sigma: Tensor, size: int, reach: int) -> Tensor:
    """Return (N, o, o): row i holds the weights of output i. Weights outside the image go to the pixels at the
    edges."""
    distance = torch.arange(-reach, reach + 1, device=sigma.device)
    # Double precision, so that the rounded result does not depend on the order of summation or on the other views.
    sigma = sigma.double()
    weights = (-0.5 * (distance / sigma[:, None]) ** 2).exp()
    # Each kernel ends at the reach of its own width, not at that of the widest kernel of the chunk.
    weights = weights * (distance.abs() <= (REACH_SIGMAS * sigma).ceil()[:, None])
    weights = (weights / weights.sum(1, keepdim=True)).float()  # (N, 2R + 1)

    # Every row is the same kernel at another position: a window that slides over the kernel, padded with zeros.
    rows = pad(weights, (size - 1, size - 1)).unfold(1, size + 2 * reach, 1).flip(1)  # (N, o, o + 2R)
    matrix = rows[:, :, reach : reach + size].clone()
    matrix[:, :, 0] += rows[:, :, :reach].sum(2, dtype=torch.float64)
    matrix[:, :, -1] += rows[:, :, reach + size :].sum(2, dtype=torch.float64)
    return matrix


def blur_view(view: Tensor, sigma: float) -> Tensor:
    """Blur the color planes (3, o, o) of one view by `sigma` pixels, with the kernel of `blur`. Use this on CPUs."""
    reach = math.ceil(REACH_SIGMAS * sigma)
    weights = [math.exp(-0.5 * (distance / sigma) ** 2) for distance in range(-reach, reach + 1)]
    total = sum(weights)
    # Each row of the matrix is the kernel, one place further: rows that are one longer than the matrix is wide.
    matrix = torch.zeros(STRIP_PX, STRIP_PX + 2 * reach + 1)
    matrix[:, : 2 * reach + 1] = torch.tensor([weight / total for weight in weights])
    matrix = matrix.view(-1)[: STRIP_PX * (STRIP_PX + 2 * reach)].view(STRIP_PX, STRIP_PX + 2 * reach)
    return _blur_rows(_blur_rows(view, matrix).transpose(1, 2), matrix).transpose(1, 2)


def _blur_rows(planes: Tensor, matrix: Tensor) -> Tensor:
    """Blur planes (3, o, o) along the first side of each, strip by strip, by the matrix (T, T + 2R) of a strip."""
    _, height, width = planes.shape
    strip, reached = matrix.shape
    reach = (reached - strip) // 2
    num_strips = -(-height // strip)
    length = strip * -(
        -(num_strips * strip + 2 * reach) // strip
    )  # so that the strips of all planes are equally far apart
    padded = torch.empty(3, length, width)
    padded[:, :reach] = planes[:, :1]
    padded[:, reach : reach + height] = planes
    padded[:, reach + height :] = planes[:, -1:]
    num_all = (3 * length - reached) // strip + 1
    strips = padded.as_strided((num_all, reached, width), (strip * width, width, 1))
    blurred = torch.bmm(matrix.expand(num_all, -1, -1), strips).view(-1, width)  # (T * strips, o)
    return blurred.as_strided((3, height, width), (length * width, width, 1))
