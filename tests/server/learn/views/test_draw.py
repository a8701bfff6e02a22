from __future__ import annotations

import dataclasses
import hashlib
import math
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyview_server.learn.counter_random import uniforms
from manyview_server.learn.views.draw import HUE, draw
from manyview_server.learn.views.presets import PRESETS
from manyview_server.learn.views.recipe import (
    BlurSettings,
    ColorJitterSettings,
    CropSettings,
    PipelineSettings,
    QuarterTurnSettings,
    RotationSettings,
    SolarizeSettings,
    VerticalFlipSettings,
)

drawing = sys.modules[draw.__module__]  # the package has a function of the same name
FIELDS = [field.name for field in dataclasses.fields(drawing.ViewParameters) if field.name != "custom"]
RECIPE = dataclasses.replace(
    PRESETS["simclr"].pipelines[0],
    vertical_flip=VerticalFlipSettings(probability=0.1),
    quarter_turn=QuarterTurnSettings(probability=0.4),
    rotation=RotationSettings(probability=0.6, degrees_min=-20, degrees_max=50),
    solarize=SolarizeSettings(probability=0.3),
)


def parameters(
    recipe: Any = RECIPE,
    count: Any = 2000,
    size: Any = (100, 100),
    cache_size: Any = 100,
    seed: Any = 3,
    epoch: Any = 5,
    first_id: Any = 0,
    first_view: Any = 0,
) -> Any:
    ids = torch.arange(first_id, first_id + count) * 977
    sizes = torch.tensor([size]).repeat(count, 1)
    return draw(recipe, sizes, ids, cache_size=cache_size, seed=seed, epoch=epoch, first_view=first_view)


def equal(one: Any, other: Any) -> Any:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in FIELDS)


def test_parameters_depend_on_seed_epoch_id_and_view_alone() -> None:
    assert equal(parameters(), parameters())
    for change in ({"seed": 4}, {"epoch": 6}, {"first_id": 1}):
        other = parameters(**change)
        for name in set(FIELDS) - {"image", "solarize_before_blur"}:
            assert not torch.equal(getattr(parameters(), name), getattr(other, name)), (change, name)
    one, two = parameters().factors.view(2, -1, 4)
    assert not (one == two).any()
    second = parameters(dataclasses.replace(RECIPE, count=1), first_view=1)
    assert torch.equal(second.factors, two)


@settings(deadline=None, max_examples=20)
@given(split=st.integers(1, 63), threads=st.sampled_from([1, 2]), num_views=st.integers(1, 3))
def test_parameters_are_equal_in_any_batch_and_with_any_number_of_threads(
    split: Any, threads: Any, num_views: Any
) -> None:
    ids = torch.randint(-(2**63), 2**63 - 1, (64,), generator=torch.Generator().manual_seed(0))
    sizes = torch.randint(1, 500, (64, 2), generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()

    def of(rows: Any, views: Any = num_views) -> Any:
        recipe = dataclasses.replace(RECIPE, count=views)
        return draw(recipe, sizes[rows], ids[rows], cache_size=64, seed=2**53 - 1, epoch=7)

    whole = of(slice(None), 3)
    torch.set_num_threads(threads)
    try:
        parts = [of(slice(0, split)), of(slice(split, None))]
    finally:
        torch.set_num_threads(before)
    for name in set(FIELDS) - {"image", "solarize_before_blur"}:
        joined = torch.cat([getattr(part, name).unflatten(0, (num_views, -1)) for part in parts], dim=1)
        assert torch.equal(joined, getattr(whole, name).unflatten(0, (3, -1))[:num_views]), name


def test_each_change_applies_as_often_as_its_probability_says() -> None:
    drawn = parameters()
    shares = {
        "flip": drawn.flip,
        "flip_vertical": drawn.flip_vertical,
        "quarter_turns": drawn.quarter_turns > 0,
        "angle": drawn.angle != 0,
        "jitter": drawn.jitter,
        "grayscale": drawn.grayscale,
        "blur": drawn.sigma > 0,
        "solarize": drawn.solarize_from.isfinite(),
    }
    expected = {"flip": 0.5, "flip_vertical": 0.1, "quarter_turns": 0.4, "angle": 0.6}
    expected |= {"jitter": 0.8, "grayscale": 0.2, "blur": 0.5, "solarize": 0.3}
    for name, share in shares.items():
        assert share.float().mean().item() == pytest.approx(expected[name], abs=0.035), name


@pytest.mark.parametrize(("probability", "count"), [(0.0, 0), (1.0, 4000)])
def test_probabilities_of_zero_and_one_are_never_and_always(probability: float, count: int) -> None:
    blur = parameters(PipelineSettings(count=2, blur=BlurSettings(probability=probability))).sigma > 0
    jitter = parameters(PipelineSettings(count=2, color_jitter=ColorJitterSettings(probability=probability))).jitter
    assert (blur.sum(), jitter.sum()) == (count, count)


def test_amounts_are_uniform_within_their_bounds() -> None:
    drawn = parameters(dataclasses.replace(RECIPE, color_jitter=ColorJitterSettings(strength=0.5)))
    low, high = drawn.factors.amin(0), drawn.factors.amax(0)
    assert torch.allclose(low, torch.tensor([0.6, 0.6, 0.6, -0.1]), atol=0.005)
    assert torch.allclose(high, torch.tensor([1.4, 1.4, 1.4, 0.1]), atol=0.005)
    assert torch.allclose(drawn.factors.mean(0), torch.tensor([1.0, 1.0, 1.0, 0.0]), atol=0.015)
    sigma = drawn.sigma[drawn.sigma > 0]
    assert 0.1 <= sigma.min() < 0.11
    assert 1.99 < sigma.max() <= 2.0
    assert sigma.mean().item() == pytest.approx(1.05, abs=0.04)
    angle = drawn.angle[drawn.angle != 0]
    assert -20 <= angle.min() < -19
    assert 49 < angle.max() <= 50
    assert angle.mean().item() == pytest.approx(15, abs=1.5)
    turns = drawn.quarter_turns.bincount(minlength=4)[1:]
    assert (turns / turns.sum() - 1 / 3).abs().max() < 0.05


def test_a_factor_never_goes_below_zero() -> None:
    drawn = parameters(PipelineSettings(count=2, color_jitter=ColorJitterSettings(brightness=3.0)))
    assert 0 <= drawn.factors[:, 0].min() < 0.01
    assert 3.9 < drawn.factors[:, 0].max() <= 4.0


def test_all_orders_of_the_four_changes_are_equally_likely() -> None:
    orders, counts = parameters().order.unique(dim=0, return_counts=True)
    assert len(orders) == 24
    assert counts.min() > 110
    assert counts.max() < 230  # of 4000, 167 each are expected, with a standard deviation of 13
    assert (orders == HUE).sum(1).eq(1).all()


def test_areas_and_ratios_of_crops_are_those_of_torchvision() -> None:
    torchvision = pytest.importorskip("torchvision").transforms.RandomResizedCrop
    torch.manual_seed(0)
    image = torch.empty(3, 90, 120)
    theirs = torch.tensor([torchvision.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)]).double()
    ours = drawing._crop(
        CropSettings(),
        torch.tensor([[90, 120]]).repeat(4000, 1),
        uniforms(torch.arange(4000), seed=1, epoch=1, num_draws=drawing._NUM_DRAWS)[0],
    ).double()
    for statistic in (
        lambda c: c[:, 2] * c[:, 3],
        lambda c: (c[:, 3] / c[:, 2]).log(),
        lambda c: c[:, 0],
        lambda c: c[:, 1],
    ):
        one, two = statistic(ours).sort().values, statistic(theirs).sort().values  # type: ignore[no-untyped-call]
        spread = two[-1] - two[0]
        assert (one - two).abs().mean() < 0.02 * spread


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    cache_size=st.integers(1, 256),
    scale_min=st.floats(0.01, 1),
    seed=st.integers(0, 2**53 - 1),
)
def test_crops_lie_within_the_cached_image(height: Any, width: Any, cache_size: Any, scale_min: Any, seed: Any) -> None:
    recipe = PipelineSettings(count=2, crop=CropSettings(scale_min=scale_min))
    crop = parameters(recipe, count=20, size=(height, width), cache_size=cache_size, seed=seed).crop
    top, left, h, w = crop.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (h >= 1).all()
    assert (w >= 1).all()
    assert (top + h <= cache_size).all()
    assert (left + w <= cache_size).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((100, 100), [0, 0, 100, 100]), ((100, 400), [0, 133, 100, 133]), ((400, 100), [133, 0, 133, 100])],
)
def test_an_image_into_which_no_crop_fits_is_cropped_at_its_center(size: tuple[int, int], expected: list[int]) -> None:
    never = PipelineSettings(count=2, crop=CropSettings(scale_min=1.0))
    sizes = torch.tensor([size])
    u = torch.full((1, drawing._NUM_DRAWS), 0.25, dtype=torch.float64)
    assert drawing._crop(never.crop, sizes, u).tolist() == [expected]


def test_crops_are_drawn_in_the_geometry_of_the_real_image() -> None:
    square = PipelineSettings(count=2, crop=CropSettings(scale_min=0.2, scale_max=0.3, ratio_min=1.0, ratio_max=1.0))
    crop = parameters(square, size=(400, 100), cache_size=200).crop
    assert (crop[:, 2].float() / crop[:, 3]).mean().item() == pytest.approx(0.25, rel=0.02)


def test_the_exponential_is_exact_to_13_digits() -> None:
    x = torch.linspace(-2.4, 2.4, 101, dtype=torch.float64)
    expected = torch.tensor([math.exp(value) for value in x.tolist()], dtype=torch.float64)
    assert ((drawing._exp(x) - expected).abs() / expected).max() < 1e-13


def test_the_drawn_values_never_change() -> None:
    """Another value would change the views of a job that continues."""
    ids = torch.arange(64) * -0x61C8864680B583EB  # products wrap around: any 64 bits
    sizes = torch.stack([torch.arange(64) * 7 + 1, torch.arange(64) * 5 + 3], dim=1)
    digest = hashlib.sha256()
    for recipe in (RECIPE, *PRESETS["dino"].pipelines):
        drawn = draw(recipe, sizes, ids, cache_size=96, seed=5, epoch=7, first_view=1)
        for name in FIELDS:
            digest.update(getattr(drawn, name).numpy().tobytes())
    assert digest.hexdigest() == "0a9a5751e629c4eebb136efd1a3532f94002e3e433b64b5a6c7a868c0c02667d"
