"""Backbones of all kinds, from the configuration to embeddings and an export that their own library loads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

import manyview
from support.clients.wire import refused
from support.service.harness import SMALL_JOB, ServerProcess, jpeg, write_photos

SIZE = 32
JOB = SMALL_JOB | {
    "backbone_width": 1.0,
    "image_size": SIZE,
    "max_steps": 2,
    "memory_bank_size": 0,
    "evaluation": {"knn_every_epochs": 0},
}


@pytest.fixture(scope="module")
def dataset(client: manyview.Client, tmp_path_factory: pytest.TempPathFactory) -> manyview.Dataset:
    folder = tmp_path_factory.mktemp("few")
    write_photos(folder, 32, seed=11)
    return client.upload(folder, dataset="few-of-backbones")


def pixels() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)


def features_of(network: nn.Module, config: dict[str, Any]) -> np.ndarray:
    """Return the network's output for `pixels`, computed as a user would."""
    mean, std = (torch.tensor(config["views"]["normalize"][name]) for name in ("mean", "std"))
    images = ((torch.from_numpy(pixels()) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return network.eval()(images).numpy()


def torchvisions(name: str, tensors: dict[str, torch.Tensor]) -> nn.Module:
    network = torchvision.models.get_model(name, weights=None)
    problems = network.load_state_dict(tensors, strict=False)
    assert not problems.unexpected_keys
    assert {key.rpartition(".")[0] for key in problems.missing_keys} == {"fc"}
    network.fc = nn.Identity()
    return network


def timms(name: str, tensors: dict[str, torch.Tensor], **options: Any) -> nn.Module:
    network = timm.create_model(name, num_classes=0, **options)
    network.load_state_dict(tensors)
    return network


LOADED: dict[str, tuple[str, Callable[[dict[str, torch.Tensor]], nn.Module]]] = {
    "torchvision/shufflenet_v2_x0_5": ("1024 features", lambda t: torchvisions("shufflenet_v2_x0_5", t)),
    "timm/resnet10t": ("512 features", lambda t: timms("resnet10t", t)),
    "timm/vit_tiny_patch16_224": (
        "192 features",
        lambda t: timms("vit_tiny_patch16_224", t, dynamic_img_size=True),
    ),
    # Our own, under timm's names.
    "vit_tiny": (
        "patch_size 4: 192 features",
        lambda t: timms("vit_tiny_patch16_224", t, img_size=SIZE, patch_size=4),
    ),
}


ALSO_EMBEDS_BELOW = "timm/resnet10t"
LONG = {ALSO_EMBEDS_BELOW, "timm/vit_tiny_patch16_224"}


@pytest.mark.parametrize(
    "backbone", [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in LOADED]
)
def test_a_job_trains_it_embeds_and_its_library_loads_the_export(
    client: manyview.Client, dataset: manyview.Dataset, tmp_path: Path, backbone: str
) -> None:
    line_text, loaded = LOADED[backbone]
    job = client.train(dataset, "moco", epochs=1, config=JOB | {"backbone": backbone, "memory_bank_size": 32})
    assert job.wait(timeout_s=50).progress.step == 2
    assert any(line.text.startswith(f"backbone {backbone}") and line_text in line.text for line in job.logs())
    network = loaded(load_file(job.export(tmp_path / "backbone.safetensors")))
    found = client.embed(pixels(), model=job).array
    np.testing.assert_allclose(found, features_of(network, dict(job.info.config)), rtol=1e-3, atol=1e-3)


def test_a_name_that_is_not_there_is_refused_with_what_is_near(
    client: manyview.Client, dataset: manyview.Dataset
) -> None:
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "did you mean 'vit_tiny'?", "config.backbone"):
        client.train(dataset, "simclr", config=JOB | {"backbone": "vit_tny"})
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "config.patch_size: has no effect while backbone is"):
        client.train(dataset, "simclr", config=JOB | {"patch_size": 4})
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "config.backbone", "'timm/vit_tiny_patch16_224'"):
        client.train(dataset, "simclr", epochs=1, config=JOB | {"backbone": "timm/vit_tiny_patch16_223"})
    assert client.resolve_config(dataset, config=JOB | {"backbone": "timm/resnet18"})["backbone"] == "timm/resnet18"
    with refused(manyview.NotFound, "MODEL_NOT_FOUND", "did you mean"):
        client.embed(pixels(), model="backbones/timm/vit_tiny_patch16_223")


def test_a_job_begins_with_the_operators_weights_and_says_so(
    client: manyview.Client, server: ServerProcess, dataset: manyview.Dataset
) -> None:
    config = JOB | {"backbone_width": 0.125, "backbone_weights": "own/mine.safetensors"}
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "config.backbone_weights", "there is no 'own/mine"):
        client.train(dataset, "simclr", config=config)
    for outside in ("../mine.safetensors", "/mine.safetensors", "own/../../mine.safetensors", "own/mine.pt"):
        with refused(manyview.InvalidArgument, "FIELD_INVALID", "config.backbone_weights", "a path in the server's"):
            client.train(dataset, "simclr", config=config | {"backbone_weights": outside})

    first = client.train(dataset, "simclr", epochs=1, config=JOB | {"backbone_width": 0.125, "seed": 5})
    first.wait(timeout_s=50)
    file = server.data_dir / "weights" / "own" / "mine.safetensors"
    file.parent.mkdir()
    first.export(file)
    # So slowly that what it began with is what it ends with.
    second = client.train(dataset, "simclr", epochs=1, config=config | {"optimizer": {"learning_rate": 1e-12}})
    second.wait(timeout_s=50)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"it starts with own/mine.safetensors, SHA-256 {sha256}" in [line.text for line in second.logs()]
    assert second.info.config["backbone_weights"] == "own/mine.safetensors"
    begun, mine = load_file(second.export(file.with_name("second.safetensors"))), load_file(file)
    assert all(torch.allclose(begun[name], mine[name]) for name in mine if "running" not in name and "num_" not in name)

    save_file({f"module.encoder_q.{name}": tensor for name, tensor in mine.items()} | {"queue": torch.zeros(9)}, file)
    third = client.train(dataset, "simclr", epochs=1, config=config)
    third.wait(timeout_s=50)
    words = "; its names start with 'module.encoder_q.'; tensors without this prefix, which are left out: 1"
    assert any(line.text.endswith(words) for line in third.logs())

    save_file({"conv1.weight": mine["conv1.weight"], "odd": torch.zeros(1)}, file)
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "config.backbone_weights: 'own/mine", "unexpected: odd"):
        client.train(dataset, "simclr", epochs=1, config=config)
    save_file({**mine, "conv1.weight": mine["conv1.weight"] / 0}, file)
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "config.backbone_weights", "the weights are not finite"):
        client.train(dataset, "simclr", epochs=1, config=config)


def test_a_librarys_network_embeds_with_the_operators_file(client: manyview.Client, server: ServerProcess) -> None:
    torch.manual_seed(4)
    network: Any = timm.create_model("resnet10t", num_classes=10)
    (server.data_dir / "weights" / "timm").mkdir()
    save_file(network.state_dict(), server.data_dir / "weights" / "timm" / "resnet10t.safetensors")
    model = client.model("backbones/timm/resnet10t")
    assert model.weights == "file"
    assert model.preprocessing is not None
    assert (model.image_size, model.preprocessing.crop) == (176, "center")
    assert model.preprocessing.source.startswith("timm's weights resnet10t.")
    found = client.embed(np.zeros((2, 224, 224, 3), dtype=np.uint8), model="backbones/timm/resnet10t")
    assert (found.checkpoint, found.array.shape) == ("backbones/timm/resnet10t", (2, 512))
    network.reset_classifier(0)
    black = (0 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        expected = network.eval()(black[None, :, None, None].expand(2, 3, model.image_size, model.image_size)).numpy()
    np.testing.assert_allclose(found.array, expected, rtol=1e-3, atol=1e-3)


def test_a_librarys_network_embeds_a_data_set_and_finds_in_it(
    client: manyview.Client, dataset: manyview.Dataset
) -> None:
    """Its width is not in the catalogue."""
    plain = "backbones/torchvision/mobilenet_v3_small"
    found = client.embed_dataset(dataset, plain)
    assert (found.checkpoint, found.array.shape) == (plain, (dataset.num_images, 1024))
    assert np.isfinite(found.array).all()
    first = next(iter(client.images(dataset)))
    (near,) = client.neighbors(dataset, first, model=plain, num_neighbors=3)
    distances = 1 - found.array @ found.array[0] / np.linalg.norm(found.array, axis=1) / np.linalg.norm(found.array[0])
    nearest = [found.keys[row] for row in distances.argsort()[1:4]]
    assert [one.key for one in near] == nearest
    with refused(manyview.NotFound, "MODEL_NOT_FOUND", "did you mean"):
        client.embed_dataset(dataset, "backbones/torchvision/mobilenet_v3_smal")


def test_a_vision_transformer_gives_its_tokens(client: manyview.Client, dataset: manyview.Dataset) -> None:
    model = "backbones/vit_tiny"
    tokens = client.embed(pixels(), model, output="patch_tokens", batch_size=2)
    assert tokens.array.shape == (4, 196, 192)
    assert np.isfinite(tokens.array).all()
    means = client.embed(pixels(), model, output="patch_mean").array
    np.testing.assert_allclose(tokens.array.mean(axis=1), means, rtol=1e-3, atol=1e-4)
    joined = client.embed(pixels(), model, output="class_and_patch_mean").array
    np.testing.assert_allclose(joined[:, 192:], means, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(joined[:, :192], client.embed(pixels(), model).array, rtol=1e-3, atol=1e-4)
    stored = client.embed_dataset(dataset, model, output="class_and_patch_mean")
    assert stored.array.shape == (dataset.num_images, 384)
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "options.output", "patch tokens are only for images that"):
        client.embed_dataset(dataset, model, output="patch_tokens")
    with refused(manyview.InvalidArgument, "FIELD_INVALID", "options.l2_normalize: must not be set for patch tokens"):
        client.embed(pixels(), model, output="patch_tokens", l2_normalize=True)
    with refused(manyview.FailedPrecondition, "NO_TOKENS", "resnet9: it has no tokens"):
        client.embed(pixels(), "backbones/resnet9", output="patch_tokens")
    broken = client.embed([b"junk", jpeg()], model, output="patch_tokens")
    assert (broken.array.shape, [*broken.errors]) == ((2, 196, 192), [0])
    assert np.isnan(broken.array[0]).all()
