from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from manyview_server.learn.views import apply, draw, make_views, pixels
from manyview_server.learn.views.draw import ViewParameters
from manyview_server.learn.views.presets import PRESETS
from manyview_server.learn.views.recipe import (
    BlurSettings,
    CropSettings,
    NormalizeSettings,
    PipelineSettings,
    RotationSettings,
    SolarizeSettings,
    VerticalFlipSettings,
    ViewSettings,
)
from support.learning.pretend_device import DEVICE, pretending

RECIPE = dataclasses.replace(
    PRESETS["simclr"].pipelines[0],
    vertical_flip=VerticalFlipSettings(probability=0.3),
    solarize=SolarizeSettings(probability=0.3),
)
THREE = dataclasses.replace(RECIPE, count=3)
NORMALIZE = NormalizeSettings()


@pytest.fixture(scope="module")
def images() -> Any:
    noise = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return (torch.nn.functional.interpolate(noise, (24, 24)) * 255).to(torch.uint8)


def ids_and_sizes(count: Any) -> Any:
    return torch.arange(count) * 31, torch.full((count, 2), 24)


def plain(count: Any, **changes: Any) -> Any:
    """Parameters that leave images as they are."""
    parameters = ViewParameters(
        image=torch.arange(count),
        crop=torch.tensor([[0, 0, 24, 24]]).repeat(count, 1),
        flip=torch.zeros(count, dtype=torch.bool),
        flip_vertical=torch.zeros(count, dtype=torch.bool),
        quarter_turns=torch.zeros(count, dtype=torch.int64),
        angle=torch.zeros(count),
        jitter=torch.zeros(count, dtype=torch.bool),
        factors=torch.tensor([[1.0, 1.0, 1.0, 0.0]]).repeat(count, 1),
        order=torch.arange(4).repeat(count, 1),
        grayscale=torch.zeros(count, dtype=torch.bool),
        sigma=torch.zeros(count),
        solarize_from=torch.full((count,), torch.inf),
        solarize_before_blur=torch.zeros(count, dtype=torch.bool),
    )
    return dataclasses.replace(parameters, **changes)


def views_of(
    images: Any, pipeline: Any = RECIPE, seed: Any = 0, epoch: Any = 0, rows: Any = slice(None), **options: Any
) -> Any:
    ids, sizes = ids_and_sizes(len(images))
    recipe = ViewSettings(pipelines=(pipeline,))
    (views,) = make_views(
        images[rows], sizes[rows], ids[rows], recipe, image_size=20, seed=seed, epoch=epoch, **options
    )
    return views


def test_without_any_change_the_image_comes_back(images: Any) -> None:
    assert torch.allclose(apply(images, plain(24), size=24) * 255, images.float(), atol=1e-3)


def test_views_equal_torchvision_step_by_step(images: Any) -> None:
    ids, sizes = ids_and_sizes(24)
    recipe = dataclasses.replace(RECIPE, blur=BlurSettings(probability=0))
    drawn = draw(recipe, sizes, ids, cache_size=24, seed=1, epoch=2)
    views = apply(images, drawn, size=20, normalize=NORMALIZE)
    changes = [
        reference.adjust_brightness,
        reference.adjust_contrast,
        reference.adjust_saturation,
        reference.adjust_hue,
    ]
    differences = []
    for row in range(48):
        top, left, height, width = drawn.crop[row].tolist()
        view = images[drawn.image[row]].float() / 255
        view = reference.resized_crop(view, top, left, height, width, [20, 20], antialias=True)
        view = view.flip(2) if drawn.flip[row] else view
        view = view.flip(1) if drawn.flip_vertical[row] else view
        for change in drawn.order[row].tolist() if drawn.jitter[row] else []:
            view = changes[change](view, drawn.factors[row, change].item())
        view = reference.rgb_to_grayscale(view, 3) if drawn.grayscale[row] else view
        view = torch.where(view < drawn.solarize_from[row], view, 1 - view)
        expected = reference.normalize(view, NORMALIZE.mean, NORMALIZE.std)
        differences.append((views[row] - expected).abs())
    difference = torch.stack(differences) * 0.225
    # A value within rounding of the threshold may be inverted in one and not in the other.
    assert (difference > 1 / 255).float().mean() < 1e-3
    assert difference.mean() < 1e-4


@pytest.mark.parametrize(
    "field",
    [
        "crop",
        "flip",
        "flip_vertical",
        "quarter_turns",
        "angle",
        "jitter",
        "factors",
        "order",
        "grayscale",
        "sigma",
        "solarize_from",
    ],
)
def test_every_parameter_takes_effect_and_on_its_own_view_only(images: Any, field: str) -> None:
    base = plain(24)
    active = dataclasses.replace(
        base, jitter=torch.ones(24, dtype=torch.bool), factors=torch.tensor([[1.4, 0.5, 1.6, 0.1]]).repeat(24, 1)
    )
    base = active if field in ("factors", "order") else base
    changed = {
        "crop": torch.tensor([2, 3, 10, 12]),
        "flip": torch.tensor(True),
        "flip_vertical": torch.tensor(True),
        "quarter_turns": torch.tensor(3),
        "angle": torch.tensor(30.0),
        "jitter": torch.tensor(True),
        "factors": torch.tensor([1.0, 1.0, 1.0, -0.1]),
        "order": torch.tensor([3, 2, 1, 0]),
        "grayscale": torch.tensor(True),
        "sigma": torch.tensor(1.5),
        "solarize_from": torch.tensor(0.3),
    }
    if field == "jitter":
        base = dataclasses.replace(base, factors=active.factors)
    value = getattr(base, field).clone()
    value[7] = changed[field]
    before = apply(images, base, size=24)
    after = apply(images, dataclasses.replace(base, **{field: value}), size=24)
    differs = (before - after).abs().amax((1, 2, 3)) > 1e-3
    assert differs.nonzero().flatten().tolist() == [7]


def test_a_view_is_the_same_in_any_batch_and_any_chunk(images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = views_of(images)
    assert torch.allclose(whole[:, 5:9], views_of(images, rows=slice(5, 9)), atol=1e-5)
    monkeypatch.setattr(pixels, "CPU_CHUNK_PIXELS", 1)
    assert torch.allclose(whole, views_of(images), atol=1e-5)


def test_repeating_a_call_repeats_every_bit(images: Any) -> None:
    assert torch.equal(views_of(images), views_of(images))


def test_seed_epoch_and_view_give_other_views(images: Any) -> None:
    views = views_of(images)
    assert not torch.allclose(views, views_of(images, seed=1), atol=0.1)
    assert not torch.allclose(views, views_of(images, epoch=1), atol=0.1)
    assert not torch.allclose(views[0], views[1], atol=0.1)


def test_shape_and_memory_format_and_dtype_are_as_asked(images: Any) -> None:
    views = views_of(images, THREE)
    assert views.shape == (3, 24, 3, 20, 20)
    assert views.is_contiguous()
    last = views_of(images, THREE, memory_format=torch.channels_last)
    assert last.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, views)
    half = views_of(images, THREE, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), views, atol=0.02)


def test_large_images_resized_one_by_one_give_the_same_views(images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = dataclasses.replace(RECIPE, solarize=SolarizeSettings())
    by_matmul = views_of(images, recipe)
    monkeypatch.setattr(pixels, "LARGEST_MATMUL_PX", 8)
    difference = (views_of(images, recipe) - by_matmul).abs() * 0.225
    assert difference.mean() < 1 / 255
    assert (difference > 6 / 255).float().mean() < 1e-2


def test_without_normalization_values_stay_between_zero_and_one(images: Any) -> None:
    ids, sizes = ids_and_sizes(24)
    views = apply(images, draw(RECIPE, sizes, ids, cache_size=24, seed=0, epoch=0), size=20)
    assert views.min() >= -1e-5
    assert views.max() <= 1 + 1e-5


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (3, 8, 8), (2, 3, 8, 9)])
def test_images_of_another_shape_are_refused(shape: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        apply(torch.zeros(shape, dtype=torch.uint8), plain(2), size=8)


def test_images_of_another_type_are_refused(images: Any) -> None:
    with pytest.raises(ValueError, match="float32"):
        apply(images.float(), plain(24), size=8)


def test_rotations_are_torchvisions(images: Any) -> None:
    angle = torch.linspace(-170, 170, 24)
    rotated = apply(images, plain(24, angle=angle), size=24)
    turned = apply(images, plain(24, quarter_turns=torch.arange(24) % 4), size=24)
    for row in range(24):
        image = images[row].float() / 255
        expected = reference.rotate(image, angle[row].item())
        assert ((rotated[row] - expected).abs().amax(0) > 1e-3).float().mean() < 0.01, row  # the nearest of two pixels
        assert torch.allclose(turned[row], reference.rotate(image, 90.0 * (row % 4)), atol=1e-5), row


def test_all_of_an_image_that_is_rotated_by_a_right_angle_is_kept(images: Any) -> None:
    by_angle = apply(images, plain(24, angle=torch.full((24,), 90.0)), size=24)
    assert torch.allclose(by_angle, (images / 255).rot90(1, (2, 3)), atol=1e-5)


def test_solarization_comes_before_or_after_the_blur(images: Any) -> None:
    both = {"sigma": torch.full((24,), 1.5), "solarize_from": torch.full((24,), 0.5)}
    after = apply(images, plain(24, **both), size=24)
    before = apply(images, plain(24, **both, solarize_before_blur=torch.ones(24, dtype=torch.bool)), size=24)
    blurred = apply(images, plain(24, sigma=both["sigma"]), size=24)
    assert torch.allclose(after, torch.where(blurred < 0.5, blurred, 1 - blurred), atol=1e-5)
    solarized = (torch.where(images < 127.5, images, 255 - images)).to(torch.uint8)
    assert torch.allclose(before, apply(solarized, plain(24, sigma=both["sigma"]), size=24), atol=1e-5)


def test_a_recipe_gives_a_tensor_for_each_size_with_the_views_in_order(images: Any) -> None:
    ids, sizes = ids_and_sizes(24)
    globals_, locals_ = dataclasses.replace(RECIPE, count=1), PipelineSettings(count=3, size_fraction=0.6)
    bicubic = dataclasses.replace(globals_, crop=CropSettings(interpolation="bicubic"))
    recipe = ViewSettings(pipelines=(globals_, bicubic, locals_))
    large, small = make_views(images, sizes, ids, recipe, image_size=20, seed=0, epoch=0)
    assert large.shape == (2, 24, 3, 20, 20)
    assert small.shape == (3, 24, 3, 12, 12)  # the nearest multiple of four
    drawn = draw(bicubic, sizes, ids, cache_size=24, seed=0, epoch=0, first_view=1)
    assert torch.equal(large[1], apply(images, drawn, size=20, interpolation="bicubic", normalize=recipe.normalize))
    drawn = draw(locals_, sizes, ids, cache_size=24, seed=0, epoch=0, first_view=2)
    assert torch.equal(small.flatten(0, 1), apply(images, drawn, size=12, normalize=recipe.normalize))


def test_rotated_views_are_black_where_nothing_comes_from(images: Any) -> None:
    always = RotationSettings(probability=1.0, degrees_min=44, degrees_max=46)
    views = views_of(images + 10, PipelineSettings(count=2, crop=CropSettings(scale_min=1.0), rotation=always))
    black = -torch.tensor(NORMALIZE.mean) / torch.tensor(NORMALIZE.std)
    assert torch.allclose(views[:, :, :, 0, 0], black.expand(2, 24, 3), atol=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_each_recipe_makes_on_a_gpu_the_views_of_the_cpu_and_waits_for_none(preset: Any) -> None:
    noise = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    images = (torch.nn.functional.interpolate(noise, (96, 96), mode="bicubic") * 255).clamp(0, 255).to(torch.uint8)
    image_ids, sizes = ids_and_sizes(6)
    arguments = sizes, image_ids, PRESETS[preset]
    on_cpu = make_views(images, *arguments, image_size=32, seed=3, epoch=2)  # above 64 pixels crops go another way
    with pretending() as device:
        given = images.to(DEVICE)
        device.waits.clear()
        on_gpu = make_views(given, *arguments, image_size=32, seed=3, epoch=2)
        assert device.waits == []
        found = [views.cpu() for views in on_gpu]
    for ours, theirs in zip(found, on_cpu, strict=True):
        difference = (ours - theirs).abs()
        assert difference.mean() < 1 / 255 / min(NORMALIZE.std)
        assert difference.quantile(0.999) < 8 / 255 / min(NORMALIZE.std)  # color jitter stretches one step of a crop
