"""Rules that hold for every loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from manyview_server.learn import losses
from support.service.waiting import Waits

B, P, K = 6, 8, 20
IDS, BANK_IDS, NUM_VALID = torch.arange(B), torch.arange(K) % 9, torch.tensor(15)
MASK = torch.arange(B * 4).view(B, 4) % 3 > 0


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


BANK = F.normalize(rows(K, P), dim=1)

# Each loss as a function of one tensor of projections, with all optional arguments.
CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "barlow_twins": lambda z: losses.barlow_twins(z, rows(B, P, seed=1)),
    "dcl": lambda z: losses.dcl(z, rows(B, P, seed=1), 0.1, weight_sigma=0.5),
    "dino": lambda z: losses.dino(z.expand(3, B, P), rows(2, B, P), torch.zeros(P)),
    "info_nce": lambda z: losses.info_nce(
        z, rows(B, P, seed=1), BANK, NUM_VALID, 0.1, image_ids=IDS, bank_image_ids=BANK_IDS
    ),
    "mae": lambda z: losses.mae(z.view(B, 4, 2), losses.normalized_patches(rows(B, 4, 2)), MASK),
    "negative_cosine": lambda z: losses.negative_cosine(z, rows(B, P, seed=1)),
    "nnclr": lambda z: losses.nnclr(
        losses.nearest_keys(z, BANK, NUM_VALID, image_ids=IDS, bank_image_ids=BANK_IDS).keys, z
    ),
    "nt_xent": lambda z: losses.nt_xent(z, rows(B, P, seed=1), 0.1),
    "simmim": lambda z: losses.simmim(z.view(B, 4, 2), rows(B, 4, 2), MASK),
    "swav": lambda z: losses.swav(
        z.expand(2, B, P), z.expand(3, B, P), queue_scores=rows(2, K, P), num_valid=NUM_VALID
    ),
    "vicreg": lambda z: losses.vicreg(z, rows(B, P, seed=1)),
}
PARTS = {"Nearest", "nearest_keys", "normalized_patches", "patchify", "sinkhorn", "update_center"}
every_loss = pytest.mark.parametrize("loss", CASES.values(), ids=CASES)


def test_no_loss_is_left_out() -> None:
    assert set(losses.__all__) == set(CASES) | PARTS


@every_loss
def test_it_never_waits_for_the_device(loss: Callable[[Tensor], Tensor]) -> None:
    z = rows(B, P, seed=2).requires_grad_()
    with Waits() as watch:
        loss(z).backward()
    assert watch.found == []


@every_loss
def test_it_is_a_float32_scalar_whatever_autocast_says_and_whatever_it_is_given(
    loss: Callable[[Tensor], Tensor],
) -> None:
    z = rows(B, P, seed=2)
    outside = loss(z)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(z)
    assert outside.shape == ()
    assert torch.equal(inside, outside)
    assert loss(z.bfloat16()).dtype == torch.float32


@every_loss
def test_what_is_not_finite_shows_in_the_loss_or_in_a_gradient(loss: Callable[[Tensor], Tensor]) -> None:
    z = rows(B, P, seed=2)
    z[1, 2] = float("nan")
    z.requires_grad_()
    value = loss(z)
    (gradient,) = torch.autograd.grad(value, z)
    assert not (value.isfinite() and gradient.isfinite().all())


def test_the_center_moves_without_waiting() -> None:
    with Waits() as watch:
        losses.update_center(torch.zeros(P), rows(2, B, P), 0.9, torch.tensor(True))
    assert watch.found == []


def test_the_watch_on_waits_sees_them() -> None:
    with Waits() as watch:
        bank = torch.ones(2, 3)
        bank.sum().item()
        bank[torch.tensor([True, False])]
        bank[torch.tensor([1, 0])]
    assert watch.found == ["_local_scalar_dense", "index by a mask"]
