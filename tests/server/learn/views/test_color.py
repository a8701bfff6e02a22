from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from manyview_server.learn.views import color
from manyview_server.learn.views.draw import BRIGHTNESS, CONTRAST, HUE, SATURATION

REFERENCES = {
    BRIGHTNESS: reference.adjust_brightness,
    CONTRAST: reference.adjust_contrast,
    SATURATION: reference.adjust_saturation,
    HUE: reference.adjust_hue,
}


@pytest.fixture
def views() -> Any:
    """(6, 3, 9, 7) in [0, 1], the last two gray and black and white."""
    views = torch.rand(6, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    views[4] = views[4, :1]
    views[5] = (views[5, :1] > 0.5).float()
    return views


def jittered(views: Any, factors: Any, order: Any) -> Any:
    planes = views.transpose(0, 1).contiguous()
    hue_at = order[0].tolist().index(HUE)
    color.jitter_(planes, color.Jitter.of(factors, order), hue_at)
    return planes.transpose(0, 1)


@pytest.mark.parametrize("change", REFERENCES)
@pytest.mark.parametrize("amount", [0.0, 0.3, 1.0, 1.7])
def test_each_change_equals_that_of_torchvision(views: Any, change: Any, amount: float) -> None:
    value = (amount - 0.9) / 2 if change == HUE else amount
    factors = torch.tensor([[1.0, 1.0, 1.0, 0.0]]).repeat(6, 1)
    factors[:, change] = value
    expected = REFERENCES[change](views, value)
    assert torch.allclose(jittered(views, factors, torch.arange(4).repeat(6, 1)), expected, atol=2e-4)


def test_changes_are_applied_in_the_order_of_each_view(views: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    for hue_at in range(4):
        others = torch.stack([torch.randperm(3, generator=generator) for _ in range(6)])
        order = torch.cat([others[:, :hue_at], torch.full((6, 1), HUE), others[:, hue_at:]], dim=1)
        factors = torch.rand(6, 4, generator=generator) * 1.6 + 0.2
        factors[:, HUE] = torch.rand(6, generator=generator) * 0.4 - 0.2
        result = jittered(views, factors, order)
        for row in range(6):
            expected = views[row]
            for change in order[row].tolist():
                expected = REFERENCES[change](expected, factors[row, change].item())
            assert torch.allclose(result[row], expected, atol=3e-4), (hue_at, row)


def test_a_full_turn_of_the_hue_changes_nothing_and_gray_stays_gray(views: Any) -> None:
    planes = views.transpose(0, 1).contiguous()
    color.turn_hue_(planes, torch.ones(6, 1, 1))
    assert torch.allclose(planes.transpose(0, 1), views, atol=1e-5)
    color.turn_hue_(planes, torch.full((6, 1, 1), 0.3))
    assert torch.allclose(planes.transpose(0, 1)[4:], views[4:], atol=1e-5)


def test_luma_is_that_of_torchvision(views: Any) -> None:
    expected = reference.rgb_to_grayscale(views)[:, 0]
    assert torch.allclose(color.luma(views.transpose(0, 1)), expected, atol=1e-3)


def test_solarization_inverts_from_the_threshold_on() -> None:
    planes = torch.tensor([0.2, 0.5, 0.9]).view(1, 1, 1, 3).repeat(3, 2, 1, 1)
    result = color.solarize(planes, torch.tensor([0.5, 2.0]).view(2, 1, 1))
    assert torch.allclose(result[0, 0, 0], torch.tensor([0.2, 0.5, 0.1]))
    assert torch.equal(result[0, 1, 0], planes[0, 1, 0])


def test_changes_in_one_order_are_those_of_views_with_any_order(views: Any) -> None:
    for order in itertools.permutations(range(4)):
        factors = torch.rand(6, 4, generator=torch.Generator().manual_seed(2)) * 1.6 + 0.2
        factors[:, HUE] -= 1
        expected = jittered(views, factors, torch.tensor([order]).repeat(6, 1))
        planes = views.transpose(0, 1).contiguous()
        color.change_colors_(planes, factors, order)
        assert torch.allclose(planes.transpose(0, 1), expected, atol=1e-4), order
