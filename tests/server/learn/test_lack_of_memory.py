from __future__ import annotations

import numpy as np
import pytest
import torch

from manyview_server.learn.lack_of_memory import is_lack_of_memory

TOO_MANY = 1 << 57


@pytest.mark.parametrize("allocate", [lambda: torch.empty(TOO_MANY), lambda: np.empty(TOO_MANY)])
def test_what_torch_and_numpy_say_of_too_large_an_array_is_known(allocate):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()
    assert is_lack_of_memory(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("can't allocate memory"), KeyError("x")])
def test_other_errors_are_none(error):
    assert not is_lack_of_memory(error)


def test_a_devices_is_known_by_its_class():
    assert is_lack_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
