from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from manyview_server.learn.losses import contrastive, dcl, info_nce, nt_xent
from support.learning.golden import waves


def bank_reference(query: Tensor, key: Tensor, bank: Tensor, temperature: float, masked: Tensor) -> Tensor:
    """Equation 1 of MoCo as its authors compute it: cross-entropy over the logits, the key's first."""
    q, k = F.normalize(query, dim=1), F.normalize(key, dim=1)
    negatives = (q @ bank.T).masked_fill(masked, -math.inf)
    logits = torch.cat([(q * k).sum(1, keepdim=True), negatives], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))


def algorithm_1(z0: Tensor, z1: Tensor, temperature: float) -> float:
    """SimCLR's Algorithm 1, pair by pair."""
    z = F.normalize(torch.stack([z0, z1], 1).flatten(0, 1), dim=1)  # view 2k beside view 2k + 1
    total = 0.0
    for i in range(len(z)):
        others = [math.exp(float(z[i] @ z[j]) / temperature) for j in range(len(z)) if j != i]
        total -= math.log(math.exp(float(z[i] @ z[i ^ 1]) / temperature) / sum(others))
    return total / len(z)


@pytest.mark.parametrize(
    ("temperature", "loss", "gradient_norm"),
    [(0.5, 3.04140138, 0.20446432), (0.1, 7.10600453, 1.13157013), (0.07, 9.56537256, 1.63121966)],
)
def test_nt_xent_has_the_reference_values(temperature: float, loss: float, gradient_norm: float) -> None:
    a, b = waves(8, 16, 0.1).requires_grad_(), waves(8, 16, 1.3)
    value = nt_xent(a, b, temperature)
    value.backward()
    assert a.grad is not None
    assert value.item() == pytest.approx(loss, abs=1e-6)
    assert a.grad.norm().item() == pytest.approx(gradient_norm, abs=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_nt_xent_is_algorithm_1_and_symmetric(batch: int, temperature: float) -> None:
    z0, z1 = waves(batch, 7, 0.4), waves(batch, 7, 2.0)
    assert nt_xent(z0, z1, temperature).item() == pytest.approx(algorithm_1(z0, z1, temperature), abs=1e-9)
    assert nt_xent(z1, z0, temperature).item() == pytest.approx(nt_xent(z0, z1, temperature).item(), abs=1e-12)


def test_nt_xent_of_two_opposite_images_by_hand() -> None:
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    expected = math.log(math.e + 2 * math.exp(-1)) - 1  # partner at 1, the other image's two views at -1
    assert nt_xent(z, z, 1.0).item() == pytest.approx(expected)


def test_nt_xent_where_all_images_look_the_same_is_the_log_of_the_candidates() -> None:
    z = torch.ones(6, 4)
    assert nt_xent(z, z, 0.3).item() == pytest.approx(math.log(2 * 6 - 1), abs=1e-6)


def test_the_bank_loss_has_the_reference_values_over_four_calls() -> None:
    a, b = waves(8, 16, 0.1), waves(8, 16, 1.3)
    bank, pointer = F.normalize(waves(20, 16, 2.7), dim=1), 0
    for expected, pointer_after in ((4.36651053, 8), (4.70877611, 16), (4.18656355, 0), (4.00663268, 8)):
        assert info_nce(a, b, bank, 20, 0.2).item() == pytest.approx(expected, abs=1e-6)
        rows = min(8, 20 - pointer)  # the reference drops what does not fit before the end
        bank[pointer : pointer + rows] = F.normalize(b, dim=1)[:rows]
        pointer = (pointer + rows) % 20
        assert pointer == pointer_after


@pytest.mark.parametrize("chunk", [1, 7, 1024])
@pytest.mark.parametrize("temperature", [0.01, 0.02, 0.2, 2.0])
def test_the_chunked_loss_and_its_gradients_are_those_of_cross_entropy(
    chunk: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrastive, "CHUNK_SLOTS", chunk)
    bank, num_valid = F.normalize(waves(23, 6, 2.2), dim=1), 19
    image_ids, bank_image_ids = torch.arange(9), torch.arange(23) % 5 + 7  # ids 7 and 8 are in the bank
    masked = (image_ids[:, None] == bank_image_ids) | (torch.arange(23) >= num_valid)

    query, key = waves(9, 6, 0.3).requires_grad_(), waves(9, 6, 1.1).requires_grad_()
    loss = info_nce(
        query, key, bank, torch.tensor(num_valid), temperature, image_ids=image_ids, bank_image_ids=bank_image_ids
    )
    expected = bank_reference(query, key, bank, temperature, masked)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    for ours, theirs in zip(
        torch.autograd.grad(3 * loss, (query, key)), torch.autograd.grad(3 * expected, (query, key)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


def test_the_bank_loss_in_float32_is_near_that_in_float64_for_banks_of_either_type() -> None:
    query, key, bank = torch.randn(16, 32), torch.randn(16, 32), F.normalize(torch.randn(3000, 32), dim=1)
    expected = info_nce(query.double(), key.double(), bank.double(), 3000, 0.07).item()
    assert info_nce(query, key, bank, 3000, 0.07).item() == pytest.approx(expected, rel=1e-5)
    rounded = info_nce(query.double(), key.double(), bank.bfloat16(), 3000, 0.07).item()
    assert info_nce(query, key, bank.bfloat16(), 3000, 0.07).item() == pytest.approx(rounded, rel=1e-5)


def test_where_all_keys_look_the_same_the_loss_is_ln_of_the_valid_keys_and_one() -> None:
    ones = torch.ones(4, 8)
    bank = F.normalize(torch.ones(50, 8), dim=1)
    for num_valid in (0, 1, 49, 50):
        assert info_nce(ones, ones, bank, num_valid, 0.2).item() == pytest.approx(math.log(num_valid + 1), abs=1e-5)


def test_an_empty_bank_pulls_on_nothing() -> None:
    query = torch.randn(4, 8, requires_grad=True)
    info_nce(query, torch.randn(4, 8), torch.zeros(16, 8), 0, 0.2).backward()
    assert query.grad is not None
    assert (query.grad == 0).all()


def test_losses_compute_in_float32_inside_autocast_and_from_half_precision() -> None:
    z0, z1 = torch.randn(32, 64), torch.randn(32, 64)
    bank = F.normalize(torch.randn(100, 64), dim=1)
    outside = nt_xent(z0, z1, 0.1), info_nce(z0, z1, bank, 100, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = nt_xent(z0, z1, 0.1), info_nce(z0, z1, bank, 100, 0.1)
    assert inside == outside
    assert nt_xent(z0.bfloat16(), z1.bfloat16(), 0.1).dtype == torch.float32
    assert info_nce(z0.bfloat16(), z1.bfloat16(), bank, 100, 0.1).dtype == torch.float32


@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_degenerate_batches_are_finite(temperature: float) -> None:
    bank = F.normalize(torch.randn(10, 4), dim=1)
    opposite = -bank[:1] * 5
    for query, key in ((torch.zeros(3, 4), torch.zeros(3, 4)), (torch.ones(1, 4), -torch.ones(1, 4)), (bank, -bank)):
        query.requires_grad_()
        for loss in (nt_xent(query, key, temperature), info_nce(query, key, opposite, 1, temperature)):
            (gradient,) = torch.autograd.grad(loss, query)
            assert torch.isfinite(loss)
            assert torch.isfinite(gradient).all()
    assert nt_xent(torch.ones(1, 4), torch.ones(1, 4), temperature) == 0


@pytest.mark.parametrize("temperature", [0.0, -1.0, 0.009, float("nan")])
def test_temperatures_that_cannot_be_are_refused(temperature: float) -> None:
    z = torch.ones(2, 4)
    with pytest.raises(ValueError, match="temperature must be at least"):
        nt_xent(z, z, temperature)
    with pytest.raises(ValueError, match="temperature must be at least"):
        info_nce(z, z, z, 2, temperature)


def test_shapes_that_do_not_fit_are_refused() -> None:
    z = torch.ones(2, 4)
    for other in (torch.ones(3, 4), torch.ones(2, 5), torch.ones(2, 4, 1)):
        with pytest.raises(ValueError, match="both projections must be"):
            nt_xent(z, other, 0.5)
    with pytest.raises(ValueError, match="both projections must be"):
        nt_xent(z[:0], z[:0], 0.5)
    with pytest.raises(ValueError, match=r"the bank must be \(K, 4\)"):
        info_nce(z, z, torch.ones(8, 5), 8, 0.5)
    with pytest.raises(ValueError, match="give both image_ids and bank_image_ids"):
        info_nce(z, z, z, 2, 0.5, image_ids=torch.arange(2))


def equation_5(z0: Tensor, z1: Tensor, temperature: float) -> float:
    """DCL, projection by projection: the positive is not in the denominator."""
    z, total = F.normalize(torch.cat([z0, z1]), dim=1), 0.0
    for i in range(len(z)):
        partner = (i + len(z0)) % len(z)
        others = [math.exp(float(z[i] @ z[j]) / temperature) for j in range(len(z)) if j not in (i, partner)]
        total += math.log(sum(others)) - float(z[i] @ z[partner]) / temperature
    return total / len(z)


@pytest.mark.parametrize(
    ("weight_sigma", "loss", "gradient_norm"), [(None, 7.10490766, 1.13278738), (0.5, 7.13535237, 1.13900032)]
)
def test_dcl_has_the_reference_values(weight_sigma: float | None, loss: float, gradient_norm: float) -> None:
    a, b = waves(8, 16, 0.1).requires_grad_(), waves(8, 16, 1.3)
    value = dcl(a, b, 0.1, weight_sigma=weight_sigma)
    value.backward()
    assert a.grad is not None
    assert value.item() == pytest.approx(loss, abs=1e-6)
    assert a.grad.norm().item() == pytest.approx(gradient_norm, abs=1e-6)


@pytest.mark.parametrize("batch", [2, 5])
def test_dcl_is_equation_5_and_symmetric(batch: int) -> None:
    z0, z1 = waves(batch, 7, 0.4), waves(batch, 7, 2.0)
    assert dcl(z0, z1, 0.2).item() == pytest.approx(equation_5(z0, z1, 0.2), abs=1e-9)
    assert dcl(z1, z0, 0.2).item() == pytest.approx(dcl(z0, z1, 0.2).item(), abs=1e-12)


def test_dcl_of_degenerate_batches_is_finite_or_refused() -> None:
    one = torch.randn(1, 4, requires_grad=True)
    value = dcl(one, torch.randn(1, 4), 0.1)
    value.backward()
    assert value == 0
    assert one.grad is not None
    assert not one.grad.any()
    assert dcl(torch.zeros(3, 4), torch.zeros(3, 4), 0.1, weight_sigma=0.5).isfinite()
    with pytest.raises(ValueError, match="weight_sigma must be above 0, not 0"):
        dcl(torch.ones(2, 4), torch.ones(2, 4), 0.1, weight_sigma=0.0)
