"""The frequency of each change and the distribution of its parameters: every step, in every recipe of the papers."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from scipy import stats
from torchvision.transforms import ColorJitter, RandomResizedCrop

from manyview_server.learn.views.draw import draw
from manyview_server.learn.views.presets import PRESETS
from manyview_server.learn.views.recipe import (
    BlurSettings,
    ColorJitterSettings,
    GrayscaleSettings,
    HorizontalFlipSettings,
    PipelineSettings,
    QuarterTurnSettings,
    RotationSettings,
    SolarizeSettings,
    VerticalFlipSettings,
)

COUNT = 4000
SIGMAS = 4.5  # of several hundred rates none is so far off, unless something is wrong

PIPELINES = {
    f"{name}-{index}": pipeline for name, views in PRESETS.items() for index, pipeline in enumerate(views.pipelines)
} | {
    "everything": PipelineSettings(
        horizontal_flip=HorizontalFlipSettings(probability=0.3),
        vertical_flip=VerticalFlipSettings(probability=0.6),
        quarter_turn=QuarterTurnSettings(probability=0.7),
        rotation=RotationSettings(probability=0.4, degrees_min=-20, degrees_max=50),
        color_jitter=ColorJitterSettings(probability=0.9, strength=0.4),
        grayscale=GrayscaleSettings(probability=0.15),
        blur=BlurSettings(probability=0.25, sigma_min=0.5, sigma_max=3),
        solarize=SolarizeSettings(probability=0.35, threshold=100),
    )
}


def drawn_by(pipeline: Any, *, seed: Any = 11, size: Any = (300, 400)) -> Any:
    sizes = torch.tensor([size]).repeat(COUNT, 1)
    return draw(pipeline, sizes, torch.arange(COUNT) * 7919, cache_size=256, seed=seed, epoch=2)


def applied(drawn: Any) -> Any:
    """Return which changes were made to each view, as bools."""
    return {
        "horizontal_flip": drawn.flip,
        "vertical_flip": drawn.flip_vertical,
        "quarter_turn": drawn.quarter_turns > 0,
        "rotation": drawn.angle != 0,
        "color_jitter": drawn.jitter,
        "grayscale": drawn.grayscale,
        "blur": drawn.sigma > 0,
        "solarize": drawn.solarize_from.isfinite(),
    }


@pytest.mark.parametrize("name", PIPELINES)
def test_each_change_applies_as_often_as_its_probability_says(name: Any) -> None:
    for change, done in applied(drawn_by(PIPELINES[name])).items():
        p = getattr(PIPELINES[name], change).probability
        deviation = math.sqrt(p * (1 - p) / len(done))
        assert abs(done.double().mean().item() - p) <= SIGMAS * deviation, change


def test_changes_are_independent_of_each_other_and_of_the_other_view() -> None:
    done = applied(drawn_by(PIPELINES["everything"]))
    both = dict(done) | {f"{change}'": values.roll(COUNT // 2) for change, values in done.items()}
    for (one, a), (other, b) in itertools.combinations(both.items(), 2):
        assert abs(torch.corrcoef(torch.stack([a, b]).double())[0, 1]) < SIGMAS / math.sqrt(COUNT), (one, other)


def test_the_two_views_of_an_image_are_independent() -> None:
    pipeline = PIPELINES["simclr-0"]
    for done in applied(drawn_by(pipeline)).values():
        one, two = done.view(2, COUNT).double()
        if one.std() > 0:
            assert abs(torch.corrcoef(torch.stack([one, two]))[0, 1]) < SIGMAS / math.sqrt(COUNT)


def uniform_p(values: Any, low: Any, high: Any) -> Any:
    return stats.kstest(values.double().numpy(), "uniform", (low, high - low)).pvalue


@pytest.mark.parametrize("name", PIPELINES)
def test_amounts_are_uniform_between_their_bounds(name: Any) -> None:
    pipeline, drawn = PIPELINES[name], drawn_by(PIPELINES[name])
    jitter = pipeline.color_jitter
    for column, change in enumerate(("brightness", "contrast", "saturation", "hue")):
        amount = getattr(jitter, change) * jitter.strength
        low, high = (-amount, amount) if change == "hue" else (max(0, 1 - amount), 1 + amount)
        assert uniform_p(drawn.factors[:, column], low, high) > 1e-4, change
    if pipeline.blur.probability:
        assert uniform_p(drawn.sigma[drawn.sigma > 0], pipeline.blur.sigma_min, pipeline.blur.sigma_max) > 1e-4
    if pipeline.rotation.probability:
        angles = drawn.angle[drawn.angle != 0]
        assert uniform_p(angles, pipeline.rotation.degrees_min, pipeline.rotation.degrees_max) > 1e-4
    if pipeline.quarter_turn.probability:
        assert stats.chisquare(drawn.quarter_turns.bincount(minlength=4)[1:]).pvalue > 1e-4
    assert (
        drawn.solarize_from[drawn.solarize_from.isfinite()] == torch.tensor(pipeline.solarize.threshold / 255)
    ).all()
    orders, counts = drawn.order.unique(dim=0, return_counts=True)
    assert len(orders) == 24
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("name", ["simclr-0", "moco-0", "dino-0"])
def test_factors_are_distributed_as_torchvisions(name: str) -> None:
    jitter = PIPELINES[name].color_jitter
    amounts = [
        amount * jitter.strength for amount in (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    ]
    theirs = ColorJitter(*amounts)
    torch.manual_seed(0)
    bounds = theirs.brightness, theirs.contrast, theirs.saturation, theirs.hue
    values = torch.tensor([ColorJitter.get_params(*bounds)[1:] for _ in range(COUNT)])
    ours = drawn_by(PIPELINES[name]).factors
    for column in range(4):
        assert stats.ks_2samp(ours[:, column].numpy(), values[:, column].numpy()).pvalue > 1e-4


@pytest.mark.parametrize("name", [name for name in PIPELINES if name != "everything"])
def test_areas_ratios_and_places_of_crops_are_distributed_as_torchvisions(name: Any) -> None:
    crop = PIPELINES[name].crop
    image, scale, ratio = torch.empty(3, 1200, 1600), (crop.scale_min, crop.scale_max), (crop.ratio_min, crop.ratio_max)
    torch.manual_seed(0)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, scale, ratio) for _ in range(COUNT)]).double()
    sizes = torch.tensor([[1200, 1600]]).repeat(COUNT, 1)
    ours = draw(PIPELINES[name], sizes, torch.arange(COUNT), cache_size=1600, seed=0, epoch=0).crop[:COUNT].double()
    ours[:, ::2] *= 0.75  # the square of the cache has the real width, and the height stretched
    for statistic in (
        lambda c: c[:, 2] * c[:, 3],
        lambda c: c[:, 3] / c[:, 2],
        lambda c: c[:, 0],
        lambda c: c[:, 1],
    ):
        assert stats.ks_2samp(statistic(ours).numpy(), statistic(theirs).numpy()).pvalue > 1e-4  # type: ignore[no-untyped-call]
