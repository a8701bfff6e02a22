from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from manyview_server.learn.modules.masking import block_mask, num_hidden, split_patches

IDS = torch.arange(200) * 31


@given(num_patches=st.integers(2, 100), ratio=st.floats(0.01, 0.99), seed=st.integers(0, 2**53 - 1))
def test_every_patch_is_kept_or_hidden_and_every_image_hides_equally_many(
    num_patches: int, ratio: float, seed: int
) -> None:
    kept, hidden = split_patches(IDS[:7], num_patches, ratio, seed=seed, epoch=3)
    assert torch.equal(torch.cat([kept, hidden], 1).sort(1).values, torch.arange(num_patches).expand(7, -1))
    assert 1 <= hidden.shape[1] <= num_patches - 1
    assert abs(hidden.shape[1] - ratio * num_patches) <= 1


def test_a_share_of_the_patches_is_hidden() -> None:
    assert [num_hidden(196, 0.75), num_hidden(64, 0.75), num_hidden(4, 0.99), num_hidden(4, 0.01)] == [147, 48, 3, 1]


def test_each_patch_is_hidden_as_often_as_any_other_and_independently() -> None:
    ids = torch.arange(8000)
    _, hidden = split_patches(ids, 16, 0.75, seed=0, epoch=0)
    mask = torch.zeros(8000, 16).scatter(1, hidden, 1.0)
    assert torch.allclose(mask.mean(0), torch.tensor(0.75), atol=0.02)
    correlation = torch.corrcoef(mask.T)
    assert torch.allclose(correlation - torch.eye(16), torch.full((16, 16), -1 / 15).fill_diagonal_(0), atol=0.05)


def test_masks_are_a_function_of_seed_epoch_and_image() -> None:
    kept, _ = split_patches(IDS, 64, 0.75, seed=1, epoch=2)
    again, _ = split_patches(IDS[50:60], 64, 0.75, seed=1, epoch=2)
    assert torch.equal(again, kept[50:60]), "whatever the batch"
    for seed, epoch in ((2, 2), (1, 3)):
        other, _ = split_patches(IDS, 64, 0.75, seed=seed, epoch=epoch)
        assert (other.sort(1).values != kept.sort(1).values).any(1).float().mean() > 0.99
    assert len(kept.sort(1).values.unique(dim=0)) == len(IDS), "every image has its own"


def test_squares_are_hidden_whole() -> None:
    mask = block_mask(IDS, (6, 4), 0.5, block=2, seed=0, epoch=0)
    assert mask.shape == (200, 24)
    assert mask.dtype == torch.bool
    squares = mask.view(200, 3, 2, 2, 2).transpose(2, 3).flatten(3)  # (B, 3, 2, 4)
    assert torch.equal(squares.all(3), squares.any(3))
    assert torch.equal(mask.sum(1), torch.full((200,), 12))


def test_squares_that_do_not_tile_are_cut_off_by_the_edge() -> None:
    mask = block_mask(IDS, (5, 5), 0.5, block=2, seed=0, epoch=0).view(200, 5, 5)
    assert torch.equal(mask[:, 0], mask[:, 1])
    assert not torch.equal(mask[:, 3], mask[:, 4])
    assert torch.equal(mask[:, :, 2], mask[:, :, 3])


def test_a_square_may_cover_more_than_the_image() -> None:
    mask = block_mask(IDS, (4, 4), 0.5, block=3, seed=0, epoch=0)
    assert mask.any(1).all()
    assert not mask.all(1).any()
