"""The models in memory: loaded from checkpoints or as plain backbones, made ready for inference, kept while used.

Shapes: B images, o pixels on a side of the input, D output width.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from manyview_server.configuration.networks.preprocessing import DEFAULT, SUFFIX, Preprocessing
from manyview_server.learn import backbones, methods
from manyview_server.learn.backbones import Backbone, NoTokens, ResNet, TokenOutput, WeightsNotFinite
from manyview_server.learn.methods import build_method
from manyview_server.learn.plugins import PluginBroken
from manyview_server.messages.embedding import ModelKey
from manyview_server.store.jobs import checkpoints
from manyview_server.store.jobs.checkpoints import CheckpointCorrupt
from manyview_server.store.jobs.model_card import ModelCard
from manyview_server.worker import checkpoint_state
from manyview_server.worker.embedding.fused_resnet import fuse_resnets
from manyview_server.worker.images.rgb import DEFAULT_RULE, PixelRule
from manyview_server.worker.precision import DTYPES
from manyview_server.worker.preprocess import Preprocess

MAX_MODELS = 4
WHOLE_OUTPUTS = ("backbone", "projection")
"""The outputs that are not of a backbone's tokens."""


class ModelUnavailable(Exception):
    """A model that cannot be loaded. `code` is a canonical status name, `reason` UPPER_SNAKE."""

    def __init__(self, code: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class EmbeddingModel:
    """A network, and the preprocessing before it."""

    preprocessing: Preprocessing
    """The preparation of an image, to (3, o, o)."""
    feature_dim: int
    """D, the output width."""
    token_dim: int
    """The width of a token if the output is a list of tokens, or else 0."""
    rule: PixelRule
    """The rule by which the pixels of its images become RGB."""
    preprocess: Preprocess
    """The end of the preparation, on the device."""
    network: Callable[[Tensor], Tensor]
    device: torch.device

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Tensor:
        """Return features (B, D), float32 on the CPU, of uint8 images (B, 3, o, o). It waits for the device."""
        if self.device.type == "cuda":
            images = images.pin_memory().to(self.device, non_blocking=True)
        return self.network(self.preprocess(images)).float().cpu()


class ModelCache:
    """The models that were used last. Any thread may use it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._models: OrderedDict[ModelKey, EmbeddingModel] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: ModelKey) -> EmbeddingModel:
        """Return a model. While it is loaded, other threads wait for theirs. Raises ModelUnavailable."""
        with self._lock:
            model = self._models.pop(key, None) or load(key, self._device)
            self._models[key] = model
            if len(self._models) > MAX_MODELS:
                self._models.popitem(last=False)
            return model


def load(key: ModelKey, device: torch.device) -> EmbeddingModel:
    """Load a model on `device`: batch norms folded into convolutions, channels_last, in the precision of its training.

    On a CPU, the convolutions of our ResNets also add shortcuts and ReLUs (see `fused_resnet`).

    Raises:
        ModelUnavailable: its files are gone, damaged or of another network, or there is no such network any more.
    """
    if not key.checkpoint_dir:
        taken = _plain_preprocessing(key)
        plain = _output_of(_plain_backbone(key, taken.image_size), key, taken.image_size)
        return _ready(plain, plain.feature_dim, taken, DEFAULT_RULE, torch.float32, device)
    directory = Path(key.checkpoint_dir)
    try:
        checkpoints.verify(directory)
        run = checkpoints.read_state(directory)
        card = ModelCard.from_json(run["model"])
        projects = key.output == "projection"
        if key.output in WHOLE_OUTPUTS:
            network = _network(directory, run, card, projects=projects)
        else:
            network = _output_of(_backbone(directory, card), key, card.image_size)
        dtype = DTYPES[run["numerics"]["precision"]]
    except PluginBroken as broken:
        print(broken.error.traceback, file=sys.stderr, flush=True)
        raise ModelUnavailable("FAILED_PRECONDITION", "PLUGIN_FAILED", str(broken)) from broken
    except (CheckpointCorrupt, ValueError, KeyError) as error:
        raise _unavailable(directory, error) from error
    feature_dim = card.projection_dim if projects else card.feature_dim
    if isinstance(network, TokenOutput):
        feature_dim = network.feature_dim
    taken = Preprocessing.squashed(card.image_size, card.mean, card.std, key.name)
    return _ready(network, feature_dim, taken, PixelRule.of(card), dtype, device)


def _unavailable(directory: Path, error: Exception) -> ModelUnavailable:
    """Return the error that callers get for a checkpoint that cannot be loaded.

    A checkpoint whose files match its manifest is not corrupt: another release wrote it.
    """
    if not directory.is_dir():
        return ModelUnavailable("NOT_FOUND", "CHECKPOINT_GONE", "the checkpoint was removed")
    if isinstance(error, CheckpointCorrupt | WeightsNotFinite):
        return ModelUnavailable("DATA_LOSS", "CHECKPOINT_CORRUPT", str(error))
    what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
    message = f"this release cannot use the checkpoint: {what}"
    return ModelUnavailable("FAILED_PRECONDITION", "CHECKPOINT_INCOMPATIBLE", message)


def fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm of our ResNets into the convolution before it. The network must be in evaluation mode.

    They are found by their names, ``convN`` and ``bnN`` of one module, and as neighbors in a Sequential. Networks of
    other libraries are left alone, because the same names may have another order there, or mean a batch norm with an
    activation inside.
    """
    resnets = (module for module in network.modules() if isinstance(module, ResNet))
    for module in [module for resnet in resnets for module in resnet.modules()]:
        names = list(module._modules)
        pairs = list(itertools.pairwise(names)) if isinstance(module, nn.Sequential) else []
        pairs += [(name, name.replace("conv", "bn")) for name in names if name.startswith("conv")]
        for conv_name, norm_name in pairs:
            conv, norm = module._modules[conv_name], module._modules.get(norm_name)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module._modules[conv_name] = fuse_conv_bn_eval(conv, norm)
                module._modules[norm_name] = nn.Identity()


def _output_of(backbone: Backbone, key: ModelKey, image_size: int) -> Backbone | TokenOutput:
    """Return the backbone, or its tokens as the key wants them. Raises ModelUnavailable NO_TOKENS."""
    if key.output in WHOLE_OUTPUTS:
        return backbone
    try:
        return TokenOutput(backbone, key.output, image_size)
    except NoTokens as error:
        raise ModelUnavailable("FAILED_PRECONDITION", "NO_TOKENS", f"{key.backbone}: {error}") from error


def _plain_preprocessing(key: ModelKey) -> Preprocessing:
    """Return what the operator says, or else the authors of a library's weights; ours for networks of our own.

    Raises:
        ModelUnavailable: MODEL_NOT_FOUND, PREPROCESSING_INVALID, or PREPROCESSING_UNKNOWN, which asks for it.
    """
    try:
        if key.weights_file and (stated := Preprocessing.beside(Path(key.weights_file))) is not None:
            return stated
    except ValueError as error:
        raise ModelUnavailable("FAILED_PRECONDITION", "PREPROCESSING_INVALID", str(error)) from error
    if "/" not in key.backbone:
        return DEFAULT
    try:
        backbones.check_library_name(key.backbone)
    except ValueError as error:
        raise ModelUnavailable("NOT_FOUND", "MODEL_NOT_FOUND", str(error)) from error
    try:
        return backbones.library_preprocessing(key.backbone)
    except ValueError as error:
        ask = f"the server's operator can say it in weights/{key.backbone}{SUFFIX}"
        raise ModelUnavailable("FAILED_PRECONDITION", "PREPROCESSING_UNKNOWN", f"{error}; {ask}") from error


def _plain_backbone(key: ModelKey, image_size: int) -> Backbone:
    """Build a plain backbone, with the operator's weights, or with random weights that are the same at each start."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            backbone = backbones.build(key.backbone, image_size=image_size)
    except PluginBroken as broken:
        raise ModelUnavailable("FAILED_PRECONDITION", "PLUGIN_FAILED", str(broken)) from broken
    except ValueError as error:
        raise ModelUnavailable("NOT_FOUND", "MODEL_NOT_FOUND", str(error)) from error
    if key.weights_file:
        try:
            checkpoint_state.restore_backbone(Path(key.weights_file), backbone)
        except ValueError as error:
            raise ModelUnavailable("FAILED_PRECONDITION", "WEIGHTS_INVALID", str(error)) from error
    return backbone


def _backbone(directory: Path, card: ModelCard) -> Backbone:
    stem: Any = card.stem
    try:
        backbone = backbones.build(
            card.backbone,
            image_size=card.image_size,
            width=card.backbone_width,
            stem=stem,
            stem_relu=card.stem_relu,
            patch_size=card.patch_size,
        )
    except ValueError as error:  # its plugin is gone, or its library has another version
        raise ModelUnavailable("FAILED_PRECONDITION", "BACKBONE_UNAVAILABLE", str(error)) from error
    checkpoint_state.restore_backbone(directory / checkpoints.BACKBONE, backbone)
    return backbone


def _network(directory: Path, run: dict[str, Any], card: ModelCard, *, projects: bool) -> nn.Module:
    """Return the backbone if it is enough, or else the encoder with its learned embedding, and the head if needed."""
    backbone = _backbone(directory, card)  # also if the method builds its own, because it says what cannot be built
    if not projects and not card.embedding_dim:
        return backbone
    method = build_method(methods.from_json(run["settings"]), run["num_images"])
    checkpoint_state.restore_method(directory, method)
    if not projects:
        return method.encoder
    return nn.Sequential(method.encoder, method.head)


def _ready(
    network: nn.Module,
    feature_dim: int,
    taken: Preprocessing,
    rule: PixelRule,
    dtype: torch.dtype,
    device: torch.device,
) -> EmbeddingModel:
    network.eval().requires_grad_(False)
    fold_batch_norms(network)
    network.to(device, dtype).to(memory_format=torch.channels_last)
    if device.type == "cpu":
        network = fuse_resnets(network, taken.image_size, dtype)
    return EmbeddingModel(
        preprocessing=taken,
        feature_dim=feature_dim,
        token_dim=network.token_dim if isinstance(network, TokenOutput) else 0,
        rule=rule,
        preprocess=Preprocess(taken.image_size, taken.mean, taken.std, device, dtype),
        network=network,
        device=device,
    )
