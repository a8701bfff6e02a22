"""A view is a function of (seed, epoch, image id, view), whatever else is in the batch and however many threads there
are."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview_server.learn.views import make_views, pixels
from manyview_server.learn.views.presets import PRESETS
from manyview_server.learn.views.recipe import QuarterTurnSettings, RotationSettings, ViewSettings

COUNT = 24


def with_rotations(views: Any) -> Any:
    pipelines = [
        dataclasses.replace(
            pipeline, rotation=RotationSettings(probability=0.3), quarter_turn=QuarterTurnSettings(probability=0.3)
        )
        for pipeline in views.pipelines
    ]
    return ViewSettings(pipelines=tuple(pipelines))


RECIPES = {name: with_rotations(PRESETS[name]) for name in ("simclr", "byol", "dino")}


def images_of(side: Any) -> Any:
    noise = torch.rand(COUNT, 3, side // 3, side // 3, generator=torch.Generator().manual_seed(side))
    return (torch.nn.functional.interpolate(noise, (side, side), mode="nearest") * 255).to(torch.uint8)


IMAGES = {side: images_of(side) for side in (32, 96)}  # crops are products of matrices, and one by one
IDS = torch.randint(0, 2**62, (COUNT,), generator=torch.Generator().manual_seed(1))
SIZES = torch.randint(20, 300, (COUNT, 2), generator=torch.Generator().manual_seed(2))


@contextlib.contextmanager
def threads(count: Any) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def views_of(rows: Any, recipe: Any, side: Any, seed: Any, epoch: Any) -> Any:
    return make_views(
        IMAGES[side][rows], SIZES[rows], IDS[rows], RECIPES[recipe], image_size=40, seed=seed, epoch=epoch
    )


@settings(deadline=None, max_examples=25)
@given(
    recipe=st.sampled_from(sorted(RECIPES)),
    side=st.sampled_from(sorted(IMAGES)),
    rows=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=COUNT),
    num_threads=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 2**53 - 1),
    epoch=st.integers(0, 10**6),
)
def test_pixels_are_equal_in_any_batch_and_with_any_number_of_threads(
    recipe: Any, side: Any, rows: Any, num_threads: Any, seed: Any, epoch: Any
) -> None:
    whole = views_of(slice(None), recipe, side, seed, epoch)
    with threads(num_threads):
        part = views_of(rows, recipe, side, seed, epoch)
    for one, other in zip(whole, part, strict=True):
        assert (one[:, rows] - other).abs().max() <= 1e-5


@settings(deadline=None, max_examples=15)
@given(
    recipe=st.sampled_from(sorted(RECIPES)),
    side=st.sampled_from(sorted(IMAGES)),
    chunk_pixels=st.integers(1, 1 << 17),
    num_threads=st.sampled_from([1, 2]),
)
def test_pixels_are_equal_in_chunks_of_any_size(recipe: Any, side: Any, chunk_pixels: Any, num_threads: Any) -> None:
    whole = views_of(slice(None), recipe, side, 3, 4)
    with pytest.MonkeyPatch.context() as patch, threads(num_threads):
        patch.setattr(pixels, "CPU_CHUNK_PIXELS", chunk_pixels)
        chunked = views_of(slice(None), recipe, side, 3, 4)
    for one, other in zip(whole, chunked, strict=True):
        assert (one - other).abs().max() <= 1e-5


@pytest.mark.parametrize("recipe", sorted(RECIPES))
@pytest.mark.parametrize("side", sorted(IMAGES))
def test_a_view_has_the_same_bits_alone_in_chunks_of_any_size_and_in_any_layout(
    recipe: Any, side: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with threads(1):
        whole = views_of(slice(None), recipe, side, 3, 4)
        alone = [views_of([row], recipe, side, 3, 4) for row in range(COUNT)]
        monkeypatch.setitem(IMAGES, side, IMAGES[side].contiguous(memory_format=torch.channels_last))
        monkeypatch.setattr(pixels, "CPU_CHUNK_PIXELS", 5 * 40**2)
        chunked = views_of(slice(None), recipe, side, 3, 4)
    for place, views in enumerate(whole):
        assert torch.equal(views, torch.cat([parts[place] for parts in alone], dim=1))
        assert torch.equal(views, chunked[place])
