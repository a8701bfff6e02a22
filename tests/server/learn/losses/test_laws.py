"""Changes of a batch that must not change a loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from manyview_server.learn import losses

Pair = Callable[[Tensor, Tensor], Tensor]

BANK = F.normalize(torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1)
OF_ANGLES: dict[str, Pair] = {
    "dcl": lambda a, b: losses.dcl(a, b, 0.2),
    "dclw": lambda a, b: losses.dcl(a, b, 0.2, weight_sigma=0.5),
    "negative_cosine": losses.negative_cosine,
    "nnclr": losses.nnclr,
    "nt_xent": lambda a, b: losses.nt_xent(a, b, 0.2),
}
OF_PAIRS: dict[str, Pair] = {
    **OF_ANGLES,
    "barlow_twins": losses.barlow_twins,
    "dino": lambda a, b: losses.dino(torch.stack([a, b]), torch.stack([b, a]), a.new_zeros(5)),
    "info_nce": lambda a, b: losses.info_nce(a, b, BANK, 9, 0.2),
    "mae": lambda a, b: losses.mae(a[None], b[None]),
    "simmim": lambda a, b: losses.simmim(a[None], b[None]),
    "swav": lambda a, b: losses.swav(torch.stack([a, b]).tanh()),
    "vicreg": losses.vicreg,
}
batches = given(batch=st.integers(2, 9), seed=st.integers(0, 100_000))
few = settings(deadline=None, max_examples=40)


def pair(batch: int, seed: int) -> tuple[Tensor, Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, batch, 5, generator=generator, dtype=torch.float64)
    return a, b, generator


@pytest.mark.parametrize("loss", OF_PAIRS.values(), ids=OF_PAIRS)
@batches
@few
def test_the_order_of_images(loss: Pair, batch: int, seed: int) -> None:
    a, b, generator = pair(batch, seed)
    order = torch.randperm(batch, generator=generator)
    torch.testing.assert_close(loss(a[order], b[order]), loss(a, b), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("loss", OF_ANGLES.values(), ids=OF_ANGLES)
@batches
@few
def test_the_lengths_of_projections_and_a_rotation_of_all(loss: Pair, batch: int, seed: int) -> None:
    a, b, generator = pair(batch, seed)
    lengths = torch.rand(2, batch, 1, generator=generator, dtype=torch.float64) * 100 + 0.01
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))
    expected = loss(a, b)
    torch.testing.assert_close(loss(a * lengths[0], b * lengths[1]), expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(loss(a @ rotation, b @ rotation), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["barlow_twins", "dcl", "dclw", "dino", "negative_cosine", "nt_xent", "swav"])
@batches
@few
def test_which_view_comes_first(name: str, batch: int, seed: int) -> None:
    a, b, _ = pair(batch, seed)
    torch.testing.assert_close(OF_PAIRS[name](b, a), OF_PAIRS[name](a, b), atol=1e-9, rtol=1e-9)


@batches
@few
def test_the_order_of_a_banks_keys_and_what_lies_beyond_the_valid_ones(batch: int, seed: int) -> None:
    a, b, generator = pair(batch, seed)
    order = torch.randperm(12, generator=generator)
    shuffled = losses.info_nce(a, b, BANK[order], 12, 0.2)
    torch.testing.assert_close(shuffled, losses.info_nce(a, b, BANK, 12, 0.2), atol=1e-9, rtol=1e-9)
    beyond = torch.cat([BANK[:7], torch.randn(5, 5, generator=generator, dtype=torch.float64)])
    beyond[7:] = F.normalize(beyond[7:], dim=1)
    expected = losses.info_nce(a, b, BANK[:7], 7, 0.2)
    torch.testing.assert_close(losses.info_nce(a, b, beyond, 7, 0.2), expected, atol=1e-9, rtol=1e-9)


@batches
@few
def test_more_negatives_never_lower_the_loss(batch: int, seed: int) -> None:
    a, b, _ = pair(batch, seed)
    values = [losses.info_nce(a, b, BANK, num_valid, 0.2).item() for num_valid in range(13)]
    assert values == sorted(values)
