from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from manyview_server.learn.losses import info_nce
from manyview_server.learn.losses.bank_negatives import BankSums, masked_sums, valid_sums
from support.learning.agreement import normal


def sums_of_all_logits(q: Tensor, bank: Tensor, num_valid: int, temperature: float, masked: Tensor) -> BankSums:
    e = ((q @ bank.T - 1) / temperature).exp().masked_fill(masked, 0)
    e[:, num_valid:] = 0
    return BankSums(e.sum(1), e @ bank)


@settings(deadline=None, max_examples=150)
@given(
    queries=st.integers(1, 7),
    slots=st.integers(0, 15),
    num_valid=st.integers(0, 15),
    num_images=st.integers(1, 12),
    chunk=st.sampled_from([1, 4, 100]),
    temperature=st.sampled_from([0.01, 0.2, 1.0]),
    as_tensor=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_both_sums_are_those_of_all_logits_whatever_images_are_repeated(
    queries: int,
    slots: int,
    num_valid: int,
    num_images: int,
    chunk: int,
    temperature: float,
    as_tensor: bool,
    seed: int,
) -> None:
    draw = np.random.default_rng(seed)
    q, bank = F.normalize(normal(queries, 4, seed=seed)), F.normalize(normal(slots, 4, seed=seed + 1))
    ids, bank_ids = (torch.from_numpy(draw.integers(0, num_images, n)) for n in (queries, slots))
    given = torch.tensor(num_valid) if as_tensor else num_valid
    expected = sums_of_all_logits(q, bank, num_valid, temperature, ids[:, None] == bank_ids)
    for found in (
        valid_sums(q, bank, given, temperature, ids, bank_ids, chunk, q.dtype),
        masked_sums(q, bank, given, temperature, ids, bank_ids, chunk),
    ):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-9)


def test_slots_that_were_never_filled_are_not_read_on_a_cpu() -> None:
    q, bank = F.normalize(normal(3, 4, seed=0)), F.normalize(normal(9, 4, seed=1))
    expected = valid_sums(q, bank[:5], 5, 0.2, None, None, 4, q.dtype)
    bank[5:] = torch.nan
    for found, whole in zip(valid_sums(q, bank, 5, 0.2, None, None, 4, q.dtype), expected, strict=True):
        assert torch.equal(found, whole)


@pytest.mark.parametrize("temperature", [0.03, 0.07, 0.2, 1.0])
def test_the_largest_and_the_smallest_sums_stay_in_the_range_of_float32(temperature: float) -> None:
    q = F.normalize(torch.ones(2, 16), dim=1)
    for sign, exponent in ((1, 0.0), (-1, -2 / temperature)):
        bank = sign * q[:1].expand(5000, -1)
        found = valid_sums(q, bank, 5000, temperature, None, None, 1024, torch.float32)
        assert found.total.log().tolist() == pytest.approx(2 * [math.log(5000) + exponent], abs=1e-3)
        assert found.weighted.isfinite().all()


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("bank_type", [torch.float32, torch.bfloat16], ids=str)
def test_projections_in_bfloat16_change_the_loss_little_and_none_of_its_sums_is_rounded_to_it(
    bank_type: torch.dtype, temperature: float
) -> None:
    query, key = normal(64, 32, seed=0).bfloat16(), normal(64, 32, seed=1).bfloat16()
    bank = F.normalize(normal(3000, 32, seed=2), dim=1).to(bank_type)
    losses, gradients = [], []
    for dtype in (torch.bfloat16, torch.float64):
        leaf = query.to(dtype).requires_grad_()
        loss = info_nce(leaf, key.to(dtype), bank, 3000, temperature)
        losses.append(loss.item())
        gradients.append(torch.autograd.grad(loss, leaf)[0].double())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0] != torch.tensor(losses[0]).bfloat16().item()
    assert (gradients[0] - gradients[1]).norm() < 0.02 * gradients[1].norm()
