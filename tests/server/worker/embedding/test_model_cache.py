from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import timm.data
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from manyview_server.configuration.networks.preprocessing import SUFFIX, Preprocessing
from manyview_server.learn import backbones, methods, optimizers
from manyview_server.learn.methods import Feature, Method, build_method
from manyview_server.messages.embedding import ModelKey
from manyview_server.store.jobs import checkpoints
from manyview_server.store.jobs.model_card import ModelCard
from manyview_server.worker import checkpoint_state
from manyview_server.worker.embedding.model_cache import (
    MAX_MODELS,
    ModelCache,
    ModelUnavailable,
    fold_batch_norms,
    load,
)
from manyview_server.worker.images import decoder
from manyview_server.worker.images.rgb import PixelRule
from support.learning import worker_harness

CPU = torch.device("cpu")


CARRIED = ("method", "backbone", "backbone_width", "stem_relu", "transparency", "color_profile")
"""The fields that a model card takes from the settings as they are."""


def key(backbone: str = "resnet9", weights_file: str = "", checkpoint_dir: str = "") -> ModelKey:
    return ModelKey(
        name="", checkpoint_dir=checkpoint_dir, backbone=backbone, weights_file=weights_file, output="backbone"
    )


def with_statistics(network: nn.Module) -> nn.Module:
    """Batch norms as after training: with statistics, scales and shifts of their own."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.uniform_(-0.5, 1)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.mark.parametrize("name", ["resnet9", "resnet50"])
@torch.inference_mode()
def test_folding_changes_no_output_and_leaves_no_batch_norm(name: str) -> None:
    torch.manual_seed(0)
    network = with_statistics(backbones.build(name, width=0.25, stem="small"))
    images = torch.randn(4, 3, 16, 16)
    expected = network(images)
    fold_batch_norms(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["torchvision/densenet121", "timm/resnetv2_50", "timm/resnet18", "vit_tiny"])
@torch.inference_mode()
def test_a_network_of_another_kind_embeds_as_it_is(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = with_statistics(backbones.build(name))
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    model = load(key(name, str(tmp_path / "weights.safetensors")), CPU)
    torch.testing.assert_close(model.embed(images), network(model.preprocess(images)), rtol=1e-3, atol=1e-4)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., tuple[Path, Method]]:
    """Writes a checkpoint of a fresh job as a trainer does; gives its directory and what was trained."""

    def write(precision: str = "float32", card: dict[str, Any] | None = None, **overrides: Any) -> tuple[Path, Method]:
        settings = methods.from_json(worker_harness.settings("simclr", **overrides))
        method = build_method(settings, 64)
        with_statistics(method)
        chosen = {"stem": "auto", "patch_size": None, **method.encoder.backbone.chosen}
        described = {
            **{name: getattr(settings, name) for name in CARRIED},
            **{"train_job": "job", "step": 1, "epoch": 1, "embedding_dim": 0, "image_size": settings.image_size},
            **{"feature_dim": method.encoder.feature_dim, "projection_dim": method.projection_dim, **chosen},
            **{"mean": settings.views.normalize.mean, "std": settings.views.normalize.std, **(card or {})},
        }
        run = {
            "settings": methods.to_json(settings),
            "numerics": {"precision": precision, "channels_last": True},
            "num_images": 64,
            "step": 1,
            "model": ModelCard(**described).to_json(),
        }
        directory = tmp_path / checkpoints.name(1, 1)
        tensors = checkpoint_state.capture(method, optimizers.build(settings.optimizer, method, 16))
        checkpoint_state.write(directory, tensors, json.dumps(run).encode())
        return directory, method

    return write


def test_a_model_prepares_images_by_the_rule_of_its_training(checkpoint: Callable[..., tuple[Path, Method]]) -> None:
    directory, _ = checkpoint(transparency="black", color_profile="ignore")
    model = load(key(checkpoint_dir=str(directory)), CPU)
    assert model.rule == PixelRule(transparency="black", color_profile="ignore")
    assert load(key(), CPU).rule == PixelRule(transparency="white", color_profile="srgb")


@pytest.mark.parametrize(
    "backbone",
    [
        {"backbone": "resnet9", "stem_relu": False},
        {"backbone": "vit_tiny", "backbone_width": 0.3},
        {"backbone": "vit_tiny", "backbone_width": 0.3, "patch_size": 8},
        {"backbone": "timm/mobilenetv3_small_050", "backbone_width": 1.0},
        {"backbone": "torchvision/shufflenet_v2_x0_5", "backbone_width": 1.0},
    ],
)
@pytest.mark.parametrize("output", ["backbone", "projection"])
def test_a_checkpoint_of_any_backbone_embeds_as_it_was_trained(
    checkpoint: Callable[..., tuple[Path, Method]], backbone: dict[str, Any], output: Feature
) -> None:
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    for precision, near in (("float32", 0.99999), ("bfloat16", 0.99)):
        directory, method = checkpoint(precision, **backbone)
        model = load(dataclasses.replace(key(checkpoint_dir=str(directory)), output=output), CPU)
        expected = method.embed(model.preprocess(images).float(), output)
        found = model.embed(images)
        assert found.shape == expected.shape
        assert torch.cosine_similarity(found, expected).min() > near


def test_a_backbone_that_is_there_no_more_is_no_damage_to_the_checkpoint(
    checkpoint: Callable[..., tuple[Path, Method]],
) -> None:
    directory, _ = checkpoint(card={"backbone": "of_a_plugin_that_was_removed"})
    with pytest.raises(ModelUnavailable, match="unknown backbone 'of_a_plugin_that_was_removed'") as gone:
        load(key(checkpoint_dir=str(directory)), CPU)
    assert (gone.value.code, gone.value.reason) == ("FAILED_PRECONDITION", "BACKBONE_UNAVAILABLE")


def test_a_plain_backbone_is_the_same_at_each_start_and_disturbs_no_other_generator() -> None:
    torch.manual_seed(3)
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    expected_next = torch.rand(1)
    torch.manual_seed(3)
    torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    one, two = load(key(), CPU), load(key(), CPU)
    assert torch.equal(torch.rand(1), expected_next)
    assert torch.equal(one.embed(images), two.embed(images))
    assert one.embed(images).shape == (2, one.feature_dim)


def test_an_operators_weights_are_used_and_their_classifier_is_left_aside(tmp_path: Path) -> None:
    network = with_statistics(backbones.build("resnet9"))
    file = tmp_path / "resnet9.safetensors"
    save_file({**network.state_dict(), "fc.weight": torch.zeros(10, 512)}, file)
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    model = load(key(weights_file=str(file)), CPU)
    with torch.inference_mode():
        expected = network(model.preprocess(images))
    torch.testing.assert_close(model.embed(images), expected, rtol=1e-4, atol=1e-4)


def test_a_librarys_network_that_is_not_there_is_not_found() -> None:
    with pytest.raises(ModelUnavailable, match="did you mean 'timm/resnet18'") as unknown:
        load(key("timm/resnet18x"), CPU)
    assert (unknown.value.code, unknown.value.reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")


def test_what_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    save_file({"conv1.weight": torch.zeros(1)}, bad)
    with pytest.raises(ModelUnavailable) as wrong:
        load(key(weights_file=str(bad)), CPU)
    assert (wrong.value.code, wrong.value.reason) == ("FAILED_PRECONDITION", "WEIGHTS_INVALID")
    assert "with another shape: conv1.weight (1,) instead of (64, 3, 7, 7)" in str(wrong.value)
    with pytest.raises(ModelUnavailable) as gone:
        load(key(checkpoint_dir=str(tmp_path / "000000001-1")), CPU)
    assert (gone.value.code, gone.value.reason) == ("NOT_FOUND", "CHECKPOINT_GONE")
    (tmp_path / "000000002-1").mkdir()
    with pytest.raises(ModelUnavailable) as corrupt:
        load(key(checkpoint_dir=str(tmp_path / "000000002-1")), CPU)
    assert (corrupt.value.code, corrupt.value.reason) == ("DATA_LOSS", "CHECKPOINT_CORRUPT")


def test_a_file_of_weights_that_are_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    network = backbones.build("resnet9")
    weights = network.state_dict()
    weights["conv1.weight"][0] = torch.nan
    save_file(weights, tmp_path / "resnet9.safetensors")
    with pytest.raises(ModelUnavailable) as refused:
        load(key(weights_file=str(tmp_path / "resnet9.safetensors")), CPU)
    assert (refused.value.code, refused.value.reason) == ("FAILED_PRECONDITION", "WEIGHTS_INVALID")
    expected = "resnet9.safetensors is damaged: the weights are not finite: conv1.weight (147 of 9,408 values)"
    assert str(refused.value) == expected


def test_a_checkpoint_that_is_whole_and_of_another_release_is_incompatible_and_not_corrupt(
    checkpoint: Callable[..., tuple[Path, Method]], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = ModelCard.to_json
    for changed, what in (({"color": "red"}, "newer release: color is not known"), ({"mean": None}, "lacks mean")):
        card = dict(changed)

        def of_another_release(self: ModelCard, card: dict[str, Any] = card) -> dict[str, Any]:
            return {name: value for name, value in {**written(self), **card}.items() if value is not None}

        monkeypatch.setattr(ModelCard, "to_json", of_another_release)
        directory, _ = checkpoint()
        with pytest.raises(ModelUnavailable, match=what) as refused:
            load(key(checkpoint_dir=str(directory)), CPU)
        assert (refused.value.code, refused.value.reason) == ("FAILED_PRECONDITION", "CHECKPOINT_INCOMPATIBLE")


@pytest.mark.parametrize(("output", "part"), [("backbone", "encoder.backbone"), ("projection", "head")])
def test_a_checkpoint_whose_weights_are_not_finite_is_corrupt(
    checkpoint: Callable[..., tuple[Path, Method]], monkeypatch: pytest.MonkeyPatch, output: str, part: str
) -> None:
    capture = checkpoint_state.capture

    def damaged(method: Method, *others: Any) -> Any:
        name = next(name for name, _ in method.named_parameters() if name.startswith(part))
        method.get_parameter(name).data[0] = torch.inf
        return capture(method, *others)

    monkeypatch.setattr(checkpoint_state, "capture", damaged)
    directory, _ = checkpoint()
    with pytest.raises(ModelUnavailable, match=r"not finite: .* values") as refused:
        load(dataclasses.replace(key(checkpoint_dir=str(directory)), output=output), CPU)
    assert (refused.value.code, refused.value.reason) == ("DATA_LOSS", "CHECKPOINT_CORRUPT")


def test_the_models_used_last_are_kept(tmp_path: Path) -> None:
    models = ModelCache(CPU)
    files = []
    for number in range(MAX_MODELS):
        files.append(tmp_path / f"{number}.safetensors")
        save_file(backbones.build("resnet9").state_dict(), files[-1])
    first = models.get(key())
    for file in files[:-1]:
        models.get(key(weights_file=str(file)))
    assert models.get(key()) is first
    second = models.get(key(weights_file=str(files[0])))
    models.get(key(weights_file=str(files[-1])))
    assert models.get(key()) is first
    assert models.get(key(weights_file=str(files[0]))) is second
    files[1].unlink()  # the least recently used one was dropped, and must be loaded again
    with pytest.raises(ModelUnavailable):
        models.get(key(weights_file=str(files[1])))


def photographs() -> list[Image.Image]:
    """Smooth pictures with some noise, wide, tall and square, as JPEG decodes them."""
    random = np.random.default_rng(0)
    pictures: list[Image.Image] = []
    for height, width in ((400, 533), (640, 420), (300, 300)):
        coarse = Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
        pixels = np.clip(smooth + random.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        pictures.append(Image.open(buffer))
    return pictures


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",  # mean 0.5
        "resnet10t",  # crop_pct 0.95
        pytest.param("vit_small_patch14_dinov2", marks=pytest.mark.long),  # 518 px
    ],
)
@torch.inference_mode()
def test_a_plain_network_of_timm_embeds_as_its_authors_meant(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = with_statistics(timm.create_model(name, num_classes=0))
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    timms: Any = timm.data
    transform = timms.create_transform(**timms.resolve_model_data_config(network))
    model = load(key(f"timm/{name}", str(tmp_path / "weights.safetensors")), CPU)
    for picture in photographs():
        expected = network(transform(picture)[None])
        image = decoder.resample(np.array(picture), model.preprocessing)
        assert torch.cosine_similarity(model.embed(image[None]), expected).min() >= 0.9999


@torch.inference_mode()
def test_a_plain_network_of_torchvision_embeds_as_its_authors_meant(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = with_statistics(torchvision.models.resnet18())
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    network.fc = nn.Identity()
    transform = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    model = load(key("torchvision/resnet18", str(tmp_path / "weights.safetensors")), CPU)
    for picture in photographs():
        expected = network(transform(picture)[None])
        image = decoder.resample(np.array(picture), model.preprocessing)
        assert torch.cosine_similarity(model.embed(image[None]), expected).min() >= 0.9999


def test_a_network_whose_images_nobody_knows_to_prepare_asks_for_it(tmp_path: Path) -> None:
    name = "timm/vit_base_patch32_plus_256"
    with pytest.raises(ModelUnavailable, match=r"weights/timm/vit_base_patch32_plus_256\.preprocessing\.json") as asked:
        load(key(name), CPU)
    assert asked.value.reason == "PREPROCESSING_UNKNOWN"
    weights = tmp_path / "weights.safetensors"
    torch.manual_seed(0)
    save_file(backbones.build("resnet9").state_dict(), weights)
    beside = tmp_path / f"weights{SUFFIX}"
    stated = Preprocessing.squashed(64, (0.5,) * 3, (0.25,) * 3, f"the server's {beside.name}")
    beside.write_text(json.dumps(stated.to_json()))
    assert load(key("resnet9", str(weights)), CPU).preprocessing == stated
    beside.write_text("{}")
    with pytest.raises(ModelUnavailable, match=r"weights\.preprocessing\.json: lacks crop") as refused:
        load(key("resnet9", str(weights)), CPU)
    assert refused.value.reason == "PREPROCESSING_INVALID"


@torch.inference_mode()
def test_a_plain_vision_transformer_gives_its_tokens_and_another_network_has_none() -> None:
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    pooled = load(key("vit_tiny"), CPU)
    found = {
        output: load(dataclasses.replace(key("vit_tiny"), output=output), CPU)
        for output in ("class_token", "patch_tokens")
    }
    torch.testing.assert_close(found["class_token"].embed(images), pooled.embed(images))
    assert (found["patch_tokens"].feature_dim, found["patch_tokens"].token_dim) == (196 * 192, 192)
    assert found["patch_tokens"].embed(images).shape == (2, 196 * 192)
    with pytest.raises(ModelUnavailable, match="resnet9: it has no tokens") as refused:
        load(dataclasses.replace(key(), output="patch_mean"), CPU)
    assert refused.value.reason == "NO_TOKENS"
