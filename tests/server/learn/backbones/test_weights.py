from __future__ import annotations

from typing import Any

import pytest
import timm
import timm.layers
import torch
import torchvision

from manyview_server.learn import backbones
from manyview_server.learn.backbones import Backbone, WeightsNotFinite, check_finite, load_weights
from manyview_server.learn.backbones.weights import find_prefix

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


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "model.encoder.", "module.encoder_q.", "student.backbone."])
def test_the_prefix_of_a_trainer_is_removed_and_what_lies_beside_is_left_out(prefix: str) -> None:
    one, two = built("resnet9", 1), built("resnet9", 2)
    theirs = {f"{prefix}{name}": tensor for name, tensor in one.state_dict().items()}
    beside = {name: torch.ones(1) for name in ("queue", "momentum.conv1.weight", "teacher.conv1.weight")}
    loaded = load_weights(two, {**beside, **theirs, f"{prefix}fc.0.weight": torch.zeros(2)})
    assert same(one.state_dict(), two.state_dict())
    assert (loaded.prefix, loaded.num_others) == (prefix, 3)
    assert f"its names start with {prefix!r}" in loaded.words
    assert load_weights(two, one.state_dict()).words == ""


@pytest.mark.parametrize("name", ["torchvision/vit_b_32", "timm/vit_tiny_patch16_224"])
def test_names_that_begin_like_a_prefix_are_those_of_the_network(name: str) -> None:
    one = built(name) if name.startswith("timm") else backbones.build(name, image_size=64)
    names = [*one.state_dict()]
    assert find_prefix(names, one.state_dict()) == ""
    assert find_prefix([f"backbone.{each}" for each in names], one.state_dict()) == "backbone."


def test_of_another_prefix_it_is_said_that_the_rest_would_fit() -> None:
    one = built("resnet9")
    theirs = {f"{who}.{name}": tensor for name, tensor in one.state_dict().items() for who in ("ema", "teacher.net")}
    with pytest.raises(ValueError, match=r"; without 'ema\.' or 'teacher\.net\.' before their names they would fit$"):
        load_weights(one, theirs)
    with pytest.raises(ValueError, match=r"missing: conv1\.weight .*\(names without their prefix 'module\.'\)$"):
        load_weights(one, {f"module.{name}": t for name, t in one.state_dict().items() if name != "conv1.weight"})


@pytest.mark.parametrize(
    ("dtype", "word"),
    [(torch.int8, "int8"), (torch.uint8, "uint8"), (torch.float8_e4m3fn, "float8_e4m3fn"), (torch.int64, "int64")],
)
def test_quantized_weights_are_refused_by_name(dtype: torch.dtype, word: str) -> None:
    one, two = built("resnet9", 1), built("resnet9", 2)
    before = {key: tensor.clone() for key, tensor in two.state_dict().items()}
    theirs = one.state_dict()
    theirs["conv1.weight"] = theirs["conv1.weight"].to(dtype)
    with pytest.raises(ValueError, match=rf"float32, float16 or bfloat16, not quantized: conv1\.weight {word}$"):
        load_weights(two, theirs)
    assert same(before, two.state_dict())


@pytest.mark.parametrize(
    ("name", "saved_at"),
    [
        ("vit_tiny_patch16_224", 384),
        ("deit_tiny_distilled_patch16_224", 160),  # two tokens before the patches
        pytest.param("vit_small_patch14_reg4_dinov2", 224, marks=pytest.mark.long),  # registers have no positions
    ],
)
def test_positions_of_another_size_are_resampled_as_timm_resamples_them(name: str, saved_at: int) -> None:
    torch.manual_seed(0)
    theirs: Any = timm.create_model(name, num_classes=0, img_size=saved_at)
    timms: Any = timm.layers
    ours = backbones.build(f"timm/{name}", image_size=theirs.patch_embed.patch_size[0] * 4)
    load_weights(ours, theirs.state_dict())
    own = ours.state_dict()["pos_embed"]
    num_first = 0 if theirs.no_embed_class else theirs.num_prefix_tokens
    side = round((own.shape[1] - num_first) ** 0.5)
    expected = timms.resample_abs_pos_embed(theirs.pos_embed, [side, side], num_prefix_tokens=num_first)
    assert own.shape != theirs.pos_embed.shape
    torch.testing.assert_close(own, expected)


def test_positions_of_torchvision_are_resampled_and_those_of_another_width_are_refused() -> None:
    theirs = torchvision.models.vit_b_32(image_size=96).state_dict()
    ours = backbones.build("torchvision/vit_b_32", image_size=64)
    load_weights(ours, theirs)
    positions = ours.state_dict()["encoder.pos_embedding"]
    assert positions.shape == (1, 5, 768)
    assert torch.equal(positions[:, 0], theirs["encoder.pos_embedding"][:, 0])
    with pytest.raises(ValueError, match=r"with another shape: encoder\.pos_embedding \(1, 10, 7\) instead of"):
        load_weights(ours, theirs | {"encoder.pos_embedding": torch.zeros(1, 10, 7)})
