from __future__ import annotations

import torch

from manyview_server.learn import counter_random
from manyview_server.learn.counter_random import uniforms


def test_numbers_are_uniform_and_independent() -> None:
    u = uniforms(torch.arange(4000), seed=0, epoch=0, num_draws=34, views=range(2)).flatten(0, 1)
    assert u.min() >= 0
    assert u.max() < 1
    assert torch.allclose(u.mean(0), torch.full((u.shape[1],), 0.5, dtype=u.dtype), atol=0.015)
    assert torch.allclose(u.var(0), torch.full((u.shape[1],), 1 / 12, dtype=u.dtype), atol=0.005)
    correlation = torch.corrcoef(u.T) - torch.eye(u.shape[1])
    assert correlation.abs().max() < 0.06


def test_everything_that_a_number_is_for_changes_it() -> None:
    ids = torch.arange(100)
    plain = uniforms(ids, seed=1, epoch=2, num_draws=5)
    others = [
        uniforms(ids, seed=2, epoch=2, num_draws=5),
        uniforms(ids, seed=1, epoch=3, num_draws=5),
        uniforms(ids + 100, seed=1, epoch=2, num_draws=5),
        uniforms(ids, seed=1, epoch=2, num_draws=5, views=range(1, 2)),
        uniforms(ids, seed=1, epoch=2, num_draws=5, stream="a"),
        uniforms(ids, seed=1, epoch=2, num_draws=5, stream="b"),
    ]
    numbers = torch.cat([plain.flatten(), *(other.flatten() for other in others)])
    assert len(numbers.unique()) == len(numbers)


def test_what_is_equal_in_two_of_its_parts_is_no_more_alike() -> None:
    ids = torch.arange(20)
    pairs = [(seed, epoch) for seed in range(20) for epoch in range(20)]
    numbers = torch.cat([uniforms(ids, seed=s, epoch=e, num_draws=3).flatten() for s, e in pairs])
    assert len(numbers.unique()) == len(numbers)


def test_neither_the_batch_nor_how_many_are_drawn_changes_a_number() -> None:
    ids = torch.arange(100)
    whole = uniforms(ids, seed=1, epoch=2, num_draws=9, views=range(3), stream="a")
    part = uniforms(ids[40:60], seed=1, epoch=2, num_draws=4, views=range(1, 3), stream="a")
    assert torch.equal(part, whole[1:, 40:60, :4])


def test_the_mixer_is_splitmix64() -> None:
    inputs = [counter_random._signed(k * 0x9E3779B97F4A7C15 % 2**64) for k in (1, 2, 3)]
    numbers = [int(counter_random._mix(torch.tensor(number)).item()) for number in inputs]
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]  # the reference's first numbers from seed 0
    assert [number % 2**64 for number in numbers] == expected


def test_the_order_of_an_epoch_is_that_of_unsigned_hashes_whatever_the_rows() -> None:
    """Resumed jobs depend on this order. It was computed with numpy's unsigned integers."""
    ids = torch.tensor([3, 2**62 + 5, 0, 77, 2**63 - 1, 12345, 3])
    assert counter_random.order(ids, seed=7, epoch=2).tolist() == [4, 1, 0, 6, 3, 2, 5]
    places = torch.tensor([4, 0, 6, 5, 2, 3, 1])
    elsewhere = ids[places]
    assert elsewhere[counter_random.order(elsewhere, seed=7, epoch=2)].tolist() == [
        ids[row] for row in (4, 1, 0, 6, 3, 2, 5)
    ]
