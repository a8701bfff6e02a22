from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from manyview_server.learn.evaluation.collapse import effective_rank
from manyview_server.learn.step import StepResult
from manyview_server.worker.evaluation import diagnostics

BATCH = 16


def result(num_views: int = 2, dtype: torch.dtype = torch.float32) -> StepResult:
    return StepResult(
        loss=torch.tensor(1.0),
        accepted=torch.tensor(True),
        gradient_norm=torch.tensor(2.0),
        learning_rate=0.5,
        representation=torch.randn(num_views * BATCH, 8, dtype=dtype),
        projection=torch.randn(num_views * BATCH, 4, dtype=dtype),
        scalars={},
    )


class Waits(TorchDispatchMode):
    """Lists the operations that wait for a GPU, or whose size it decides."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "linalg_eigh", "_linalg_eigh")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []
        self.num_operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num_operations += 1
        name = func.overloadpacket.__name__
        if name in self.WAITING:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def all_of_them(step: StepResult) -> dict[str, Tensor]:
    return diagnostics.spread(step) | diagnostics.geometry(step, BATCH) | {"gram": diagnostics.gram(step, BATCH)}


@pytest.mark.parametrize("num_views", [1, 2, 5])
def test_what_is_told_of_features_never_waits_for_the_device(num_views: int) -> None:
    with Waits() as watch:
        scalars = all_of_them(result(num_views))
    assert watch.found == []
    assert watch.num_operations > 10
    assert ("alignment" in scalars) is (num_views > 1)


def test_the_watch_on_waits_sees_them() -> None:
    with Waits() as watch:
        float(effective_rank(torch.randn(4, 3)))
    assert watch.found == ["_linalg_eigh", "_local_scalar_dense"]


def test_features_of_half_precision_are_told_in_full() -> None:
    scalars = all_of_them(result(dtype=torch.bfloat16))
    assert {tensor.dtype for tensor in scalars.values()} == {torch.float32, torch.float64}
