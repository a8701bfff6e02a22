"""The arrays that are images, and what the errors say about others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from manyview._uploads.pixels import arrays

EIGHT = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels_come_last(channels: int) -> None:
    assert arrays.samples(np.zeros((5, 7, channels), np.uint8)).shape == (5, 7, channels)


def test_grey_needs_no_axis_for_its_channel() -> None:
    assert np.array_equal(arrays.samples(EIGHT[:, :, 0])[:, :, 0], EIGHT[:, :, 0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_become_the_nearest_level(dtype: type) -> None:
    assert np.array_equal(arrays.samples((EIGHT / 255).astype(dtype)), EIGHT)


def test_rounding_errors_outside_of_the_range_of_floats_are_cut_off() -> None:
    assert arrays.samples(np.array([[-1e-4, 1.0001]])).ravel().tolist() == [0, 255]


def test_bools_are_black_and_white() -> None:
    assert arrays.samples(np.array([[True, False]])).ravel().tolist() == [255, 0]


def test_sixteen_bits_stay_sixteen_bits() -> None:
    sixteen = EIGHT.astype(np.uint16) * 257
    assert arrays.samples(sixteen) is sixteen


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (EIGHT * 1.0, r"an image of floats must lie in \[0, 1\], not in \[\d+, \d+\]: scale it, or use uint8"),
        (np.full((4, 4), np.nan), r"must lie in \[0, 1\], not in \[nan, nan\]"),
        (EIGHT.astype(np.int64), r"must be uint8 in \[0, 255\], uint16 .* or bool, not int64: scale it"),
        (EIGHT.transpose(2, 0, 1), "channels come last, transpose it"),
        (np.zeros((4, 4, 5), np.uint8), r"must be \(H, W\), .* not \(4, 4, 5\)"),
        (np.zeros((0, 4, 3), np.uint8), r"not \(0, 4, 3\)"),
    ],
)
def test_an_error_names_what_is_allowed(array: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        arrays.samples(array)
