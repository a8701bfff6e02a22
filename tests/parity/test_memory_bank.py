from __future__ import annotations

import random

import lightly.loss
import pytest
import torch
from lightly.models.modules import NNMemoryBankModule
from lightly.models.modules.memory_bank import MemoryBankModule
from torch import Tensor
from torch.nn import functional as F

from manyview_server.learn.losses import info_nce, nearest_keys
from manyview_server.learn.modules.memory_bank import MemoryBank
from support.learning.agreement import TOLERANCES, assert_losses_agree, normal


def filled_with(keys: Tensor) -> MemoryBank:
    """Return a full bank of ours with the start of the reference: random keys that belong to none of our images."""
    num_keys, dim = keys.shape
    bank = MemoryBank(num_keys, dim, dtype=keys.dtype)
    bank.enqueue(keys, torch.full((len(keys),), 10**6))
    return bank


def whole_batches(size: int, rounds: int, seed: int) -> list[int]:
    """Yield batch sizes that reach the end of the bank exactly, for some rounds: the reference drops the overflow."""
    draw, sizes = random.Random(seed), []
    for _ in range(rounds):
        left = size
        while left:
            sizes.append(draw.randint(1, left))
            left -= sizes[-1]
    return sizes


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("size", "dim"), [(1, 2), (7, 3), (16, 8), (40, 5)])
def test_a_bank_holds_the_same_keys_bit_for_bit_at_each_step(size: int, dim: int, seed: int) -> None:
    theirs = MemoryBankModule((size, dim))
    ours = filled_with(theirs.bank)
    for step, count in enumerate(whole_batches(size, 3, seed)):
        batch = F.normalize(normal(count, dim, seed=1000 * seed + step, dtype=torch.float32), dim=1)
        before = ours.keys.clone()
        _, negatives = theirs(batch, update=True)
        ours.enqueue(batch, torch.arange(count))
        assert torch.equal(negatives.T, before), "what a batch is compared with does not hold the batch"
        assert torch.equal(ours.keys, theirs.bank)
        assert ours.pointer.item() == theirs.bank_ptr.item()


def test_what_does_not_fit_before_the_end_is_dropped_there_and_goes_on_at_the_beginning_here() -> None:
    theirs = MemoryBankModule((10, 1))
    ours = filled_with(theirs.bank)
    for number in (1.0, 2.0):
        theirs(torch.full((7, 1), number), update=True)
        ours.enqueue(torch.full((7, 1), number), torch.arange(7))
    assert theirs.bank.flatten().tolist() == [1.0] * 7 + [2.0] * 3
    assert theirs.bank_ptr.item() == 0
    assert ours.keys.flatten().tolist() == [2.0] * 4 + [1.0] * 3 + [2.0] * 3
    assert ours.pointer.item() == 4


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("size", "dim", "batch"), [(8, 4, 8), (12, 3, 4), (64, 16, 16), (4096, 32, 256)])
@pytest.mark.parametrize("temperature", [0.07, 0.2])
def test_the_loss_over_a_trace_of_batches(
    size: int, dim: int, batch: int, temperature: float, seed: int, dtype: torch.dtype
) -> None:
    theirs = lightly.loss.NTXentLoss(temperature, memory_bank_size=(size, dim)).to(dtype)
    bank = filled_with(theirs.memory_bank.bank)
    for step in range(6):
        query, key = (normal(batch, dim, seed=1000 * seed + 2 * step + view, dtype=dtype) for view in range(2))

        def our_loss(query: Tensor, key: Tensor) -> Tensor:
            return info_nce(query, key, bank.keys, bank.filled, temperature)

        def their_loss(query: Tensor, key: Tensor) -> Tensor:
            return theirs(query, key)

        assert_losses_agree(our_loss, their_loss, [query, key], TOLERANCES[dtype])
        bank.enqueue(F.normalize(key, dim=1), torch.arange(batch))
        torch.testing.assert_close(bank.keys, theirs.memory_bank.bank, atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("size", "dim", "batch"), [(1, 3, 2), (20, 4, 7), (500, 32, 64)])
def test_nearest_neighbors(size: int, dim: int, batch: int, seed: int) -> None:
    theirs = NNMemoryBankModule((size, dim))
    query = normal(batch, dim, seed=seed, dtype=torch.float32)
    assert torch.equal(nearest_keys(query, theirs.bank, size).keys, theirs(query))
