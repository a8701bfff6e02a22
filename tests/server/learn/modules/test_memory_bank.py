from __future__ import annotations

from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview_server.learn.modules.memory_bank import MemoryBank, default_size


def batch(first: int, size: int, dim: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Return keys from which their numbers can be read, and their ids."""
    ids = torch.arange(first, first + size)
    return ids[:, None].expand(-1, dim).float() + 0.5, ids


@settings(deadline=None, max_examples=150)
@given(size=st.integers(1, 12), batches=st.lists(st.tuples(st.integers(0, 30), st.sampled_from([None, True, False]))))
def test_the_bank_holds_the_latest_keys_whatever_the_batches(size: int, batches: list[tuple[int, bool | None]]) -> None:
    bank = MemoryBank(size, 2)
    model: deque[int] = deque(maxlen=size)
    written = 0
    for index, (num_keys, accept) in enumerate(batches):
        keys, ids = batch(100 * index, num_keys)
        bank.enqueue(keys, ids, None if accept is None else torch.tensor(accept))
        if accept is not False:
            model.extend(ids.tolist())
            written += num_keys

    assert bank.filled.item() == len(model)
    assert bank.pointer.item() == written % size
    oldest_first = [(int(bank.pointer) - len(model) + i) % size for i in range(len(model))]
    assert bank.image_ids[oldest_first].tolist() == list(model)
    assert bank.keys[oldest_first, 0].tolist() == [image_id + 0.5 for image_id in model]
    assert sorted(oldest_first) == list(range(len(model))), "the filled slots are the first ones"
    assert (bank.image_ids[len(model) :] == -1).all()


def test_a_batch_that_reaches_the_end_goes_on_at_the_beginning() -> None:
    bank = MemoryBank(5, 2)
    bank.enqueue(*batch(0, 3))
    bank.enqueue(*batch(3, 3))
    assert bank.image_ids.tolist() == [5, 1, 2, 3, 4]
    assert bank.pointer.item() == 1


def test_the_state_dict_brings_everything_back_bit_for_bit() -> None:
    bank = MemoryBank(7, 3, torch.bfloat16)
    bank.enqueue(torch.randn(10, 3), torch.arange(10))
    copy = MemoryBank(7, 3, torch.bfloat16)
    copy.load_state_dict(bank.state_dict())
    assert set(bank.state_dict()) == {"keys", "image_ids", "pointer", "filled"}
    for name, value in bank.state_dict().items():
        assert torch.equal(copy.state_dict()[name], value)
        assert copy.state_dict()[name].dtype == value.dtype
    for each in (bank, copy):
        each.enqueue(*batch(50, 4, 3))
    assert torch.equal(bank.keys, copy.keys)


def test_what_is_refused_on_the_device_leaves_no_trace() -> None:
    bank = MemoryBank(4, 2)
    bank.enqueue(*batch(0, 3))
    before = {name: value.clone() for name, value in bank.state_dict().items()}
    bank.enqueue(torch.full((2, 2), float("nan")), torch.tensor([8, 9]), torch.tensor(False))
    assert all(torch.equal(value, before[name]) for name, value in bank.state_dict().items())


def test_banks_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one slot"):
        MemoryBank(0, 4)
    with pytest.raises(ValueError, match="stored as floats"):
        MemoryBank(4, 4, torch.int64)


@pytest.mark.parametrize(
    ("num_images", "batch_size", "expected"),
    [(10_000, 64, 448), (50_000, 128, 2432), (1_000_000, 256, 4096), (100, 64, 64), (1_000_000, 5000, 5000)],
)
def test_the_default_bank_holds_at_most_a_twentieth_of_the_images_in_whole_batches(
    num_images: int, batch_size: int, expected: int
) -> None:
    assert default_size(num_images, batch_size) == expected
