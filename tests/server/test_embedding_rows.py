"""Rows are encoded alike for every call; one that its type cannot hold is an error of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from manyview_server.embedding_rows import FLOAT16_OVERFLOW, NON_FINITE, encode


def decoded(data: bytes, dtype: str, width: int) -> np.ndarray:
    return np.frombuffer(data, dtype).reshape(-1, width)


def test_float32_rows_stay_bit_for_bit() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    found = encode(rows, unit=False, data_type="float32")
    assert (found.data, found.errors) == (rows.tobytes(), {})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_value_beyond_float16_is_an_error_of_its_row_and_of_no_other(dtype: type) -> None:
    rows: np.ndarray[Any, Any] = np.array([[65504.0, -1], [65520, 0], [1, 2], [0, -1e30]], dtype)
    found = encode(rows, unit=False, data_type="float16")
    halves = decoded(found.data, "<f2", 2)
    assert found.errors == {1: FLOAT16_OVERFLOW, 3: FLOAT16_OVERFLOW}
    assert np.isnan(halves[[1, 3]]).all()
    np.testing.assert_array_equal(halves[[0, 2]], rows[[0, 2]])
    assert encode(rows, unit=False, data_type="float32").errors == {}


def test_rows_of_length_1_fit_into_float16_whatever_they_were() -> None:
    rows = np.array([[3e5, 4e5], [0, 0], [3e30, -4e30]], np.float32)
    found = encode(rows, unit=True, data_type="float16")
    assert found.errors == {}
    np.testing.assert_allclose(decoded(found.data, "<f2", 2), np.array([[0.6, 0.8], [0, 0], [0.6, -0.8]]), atol=1e-3)


def test_a_row_that_was_not_finite_is_nan_and_keeps_its_own_reason() -> None:
    rows = np.array([[1, np.inf], [2, 2], [np.nan, 1]], np.float32)
    found = encode(rows, unit=True, data_type="float16")
    assert found.errors == {0: NON_FINITE, 2: NON_FINITE}
    assert np.isnan(decoded(found.data, "<f2", 2)[[0, 2]]).all()
    assert np.isinf(rows[0, 1]), "the input is not changed"


def test_float64_rows_that_float32_cannot_hold_are_errors_too() -> None:
    assert encode(np.array([[1e300, 0]]), unit=False, data_type="float32").errors == {0: NON_FINITE}
