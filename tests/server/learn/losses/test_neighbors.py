from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from manyview_server.learn.losses import nearest_keys, neighbors, nnclr
from support.learning.golden import waves


@settings(deadline=None, max_examples=100)
@given(
    queries=st.integers(1, 6),
    slots=st.integers(0, 12),
    num_valid=st.integers(0, 12),
    num_images=st.integers(1, 20),
    chunk=st.sampled_from([1, 5, 100]),
    seed=st.integers(0, 10_000),
)
def test_each_query_finds_the_nearest_valid_key_of_another_image_or_itself(
    queries: int, slots: int, num_valid: int, num_images: int, chunk: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(queries, 3, generator=generator, dtype=torch.float64)
    bank = F.normalize(torch.randn(slots, 3, generator=generator, dtype=torch.float64), dim=1)
    ids = torch.randint(num_images, (queries,), generator=generator)
    bank_ids = torch.randint(num_images, (slots,), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "CHUNK_SLOTS", chunk)
        found = nearest_keys(query, bank, torch.tensor(num_valid), image_ids=ids, bank_image_ids=bank_ids)
    for i in range(queries):
        own = F.normalize(query[i], dim=0)
        allowed = [k for k in range(min(slots, num_valid)) if bank_ids[k] != ids[i]]
        best = max((bank[k] for k in allowed), key=lambda key: float(own @ key), default=own)
        torch.testing.assert_close(found.keys[i], best)
        torch.testing.assert_close(found.similarity[i], own @ best)


def test_the_neighbor_by_hand() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    found = nearest_keys(torch.tensor([[3.0, 0.3], [0.0, 2.0], [-1.0, 0.0]]), bank, 2)
    assert torch.equal(found.keys, bank[[0, 1, 1]])
    assert found.similarity[2].item() == pytest.approx(-0.6)
    ids = {"image_ids": torch.tensor([7, 8, 9]), "bank_image_ids": torch.tensor([7, 7, -1])}
    found = nearest_keys(torch.tensor([[3.0, 4.0], [0.0, 2.0], [-1.0, 0.0]]), bank, 2, **ids)
    torch.testing.assert_close(found.keys[0], torch.tensor([0.6, 0.8]))  # itself: both keys are its own image's
    assert torch.equal(found.keys[1:], bank[[1, 1]])


def test_neighbors_carry_no_gradient_and_are_float32_inside_autocast() -> None:
    query, bank = torch.randn(4, 8, requires_grad=True), F.normalize(torch.randn(9, 8), dim=1).bfloat16()
    outside = nearest_keys(query, bank, 9)
    with torch.autocast("cpu", torch.bfloat16):
        inside = nearest_keys(query, bank, 9)
    assert not inside.keys.requires_grad
    assert inside.keys.dtype == inside.similarity.dtype == torch.float32
    assert torch.equal(inside.keys, outside.keys)
    assert torch.equal(inside.similarity, outside.similarity)


def test_rows_of_zeros_have_a_neighbor_and_are_finite() -> None:
    for bank in (torch.ones(3, 4) / 2, torch.zeros(3, 4), torch.ones(0, 4)):
        found = nearest_keys(torch.zeros(2, 4), bank, len(bank))
        assert found.keys.isfinite().all()
        assert not found.similarity.any()


def test_nnclr_is_equation_3() -> None:
    nn, z = waves(5, 7, 0.4), waves(5, 7, 2.0)
    n, p = F.normalize(nn, dim=1), F.normalize(z, dim=1)
    terms = []
    for i in range(5):
        among = [math.exp(float(n[i] @ p[k]) / 0.2) for k in range(5)]
        terms.append(-math.log(among[i] / sum(among)))
    assert nnclr(nn, z, 0.2).item() == pytest.approx(sum(terms) / 5, abs=1e-9)


def test_nnclr_by_hand_and_of_degenerate_batches() -> None:
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    assert nnclr(z, z, 1.0).item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert nnclr(z[:1], z[:1]) == 0
    assert nnclr(torch.ones(6, 4), torch.ones(6, 4)).item() == pytest.approx(math.log(6), abs=1e-6)
    for row in (torch.zeros(3, 4), torch.ones(1, 4)):
        row.requires_grad_()
        (gradient,) = torch.autograd.grad(nnclr(torch.ones(len(row), 4), row), row)
        assert gradient.isfinite().all()


def test_nnclr_computes_in_float32_inside_autocast() -> None:
    nn, z = waves(5, 7, 0.4).bfloat16(), waves(5, 7, 2.0).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = nnclr(nn, z)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(nnclr(nn.double(), z.double()).item(), rel=1e-5)


def test_what_cannot_be_is_refused() -> None:
    z = torch.ones(2, 4)
    with pytest.raises(ValueError, match=r"queries must be \(B, P\) and the bank \(K, P\), not \(2, 4\) and \(3, 5\)"):
        nearest_keys(z, torch.ones(3, 5), 3)
    with pytest.raises(ValueError, match="give both image_ids and bank_image_ids"):
        nearest_keys(z, z, 2, bank_image_ids=torch.arange(2))
    with pytest.raises(ValueError, match="both projections must be"):
        nnclr(z, torch.ones(3, 4))
    with pytest.raises(ValueError, match="temperature must be at least"):
        nnclr(z, z, 0.0)
