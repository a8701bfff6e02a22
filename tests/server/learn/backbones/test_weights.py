from __future__ import annotations

import pytest
import torch

from manyview_server.learn import backbones
from manyview_server.learn.backbones import Backbone, WeightsNotFinite, check_finite, load_weights

NAMES = ["resnet9", "vit_tiny", "timm/vit_tiny_patch16_224", "torchvision/shufflenet_v2_x0_5"]


def built(name: str, seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    return backbones.build(name, image_size=32)


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("name", NAMES)
def test_a_backbones_own_weights_are_taken_bit_for_bit_and_a_classifier_is_left_aside(name: str) -> None:
    one, two = built(name, 1), built(name, 2)
    assert not same(one.state_dict(), two.state_dict())
    classifier = {f"{layer}.weight": torch.zeros(10, 3) for layer in one.left_aside}
    assert classifier
    load_weights(two, {**one.state_dict(), **classifier})
    assert same(one.state_dict(), two.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_unknown_or_of_another_shape_is_named_and_nothing_is_loaded(name: str) -> None:
    one, two = built(name, 1), built(name, 2)
    before = {key: tensor.clone() for key, tensor in two.state_dict().items()}
    theirs = one.state_dict()
    missing, reshaped = next(iter(theirs)), list(theirs)[-1]
    if reshaped.endswith("num_batches_tracked"):
        reshaped = list(theirs)[-2]
    theirs.pop(missing)
    theirs[reshaped] = torch.zeros(7)
    theirs["odd.weight"] = torch.zeros(1)
    expected = f"missing: {missing}; unexpected: odd.weight; with another shape: {reshaped} \\(7,\\) instead of"
    with pytest.raises(ValueError, match=expected):
        load_weights(two, theirs)
    assert same(before, two.state_dict())


def test_many_names_are_counted() -> None:
    expected = r"missing: conv1\.weight, bn1\.weight, bn1\.bias, bn1\.running_mean and 56 more$"
    with pytest.raises(ValueError, match=expected):
        load_weights(built("resnet9"), {})


def test_a_batch_norms_counter_may_be_missing_and_half_precision_is_converted() -> None:
    one, two = built("resnet9", 1), built("resnet9", 2)
    theirs = {k: v.half() for k, v in one.state_dict().items() if not k.endswith("num_batches_tracked")}
    load_weights(two, theirs)
    assert two.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(two.conv1.weight, one.conv1.weight, rtol=1e-3, atol=1e-3)
    assert two.bn1.num_batches_tracked == 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e300])
def test_weights_that_are_not_finite_are_counted_by_name_and_nothing_is_loaded(value: float) -> None:
    one, two = built("resnet9", 1), built("resnet9", 2)
    before = {key: tensor.clone() for key, tensor in two.state_dict().items()}
    theirs = {key: tensor.double() for key, tensor in one.state_dict().items()}
    theirs["conv1.weight"][3] = value
    theirs["bn1.running_var"][0] = value
    expected = r"not finite: conv1\.weight \(27 of 1,728 values\), bn1\.running_var \(1 of 64 values\)$"
    with pytest.raises(WeightsNotFinite, match=expected):
        load_weights(two, theirs)
    assert same(before, two.state_dict())


def test_a_classifier_that_is_left_aside_may_hold_anything() -> None:
    one, two = built("resnet9", 1), built("resnet9", 2)
    load_weights(two, {**one.state_dict(), "fc.weight": torch.full((10, 512), torch.nan)})
    assert same(one.state_dict(), two.state_dict())


def test_a_mask_that_is_infinite_by_design_is_accepted() -> None:
    mask = torch.tensor([0.0, -torch.inf])
    check_finite({"mask": mask, "count": torch.tensor(3)}, {"mask": mask, "count": torch.tensor(1)})
    with pytest.raises(WeightsNotFinite, match=r"mask \(1 of 2 values\)"):
        check_finite({"mask": mask}, {"mask": torch.zeros(2)})
