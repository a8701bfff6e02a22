from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from manyview_server.learn.out_of_memory import is_out_of_memory

TOO_MANY = 1 << 57


@pytest.mark.parametrize("allocate", [lambda: torch.empty(TOO_MANY), lambda: np.empty(TOO_MANY)])
def test_what_torch_and_numpy_say_of_too_large_an_array_is_known(allocate: Callable[..., Any]) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("can't allocate memory"), KeyError("x")])
def test_other_errors_are_none(error: Any) -> None:
    assert not is_out_of_memory(error)


def test_a_devices_is_known_by_its_class() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_a_library_of_the_device_that_finds_no_memory_is_known_by_its_words(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
