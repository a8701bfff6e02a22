"""The weights that a job's backbone starts with: a file of the operator, in the server's directory of weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from manyview_server.learn.backbones import Backbone, Loaded, WeightsNotFinite, load_weights, measured_feature_dim
from manyview_server.learn.encoder import build_encoder
from manyview_server.learn.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """The tensors of a file, with its name and hash."""

    file: str
    """The path in the directory of weights."""
    sha256: str
    """The hash of the file's bytes, in hexadecimal."""
    tensors: Mapping[str, Tensor] = field(repr=False)

    @classmethod
    def read(cls, directory: Path, file: str) -> InitialWeights:
        """Read the file of that path in `directory`. Links in it are followed: they are the operator's.

        Raises:
            ValueError: the path leads outside, there is no such file, or it is not a safetensors file.
        """
        path = directory / file
        if Path(file).is_absolute() or ".." in path.parts:
            raise ValueError(f"backbone_weights: {file!r} is outside of the server's directory of weights")
        try:
            data = path.read_bytes()
            tensors = safetensors.torch.load(data)
        except OSError as error:
            raise ValueError(f"backbone_weights: {file!r} cannot be read on the server: {error.strerror}") from error
        except SafetensorError as error:
            raise ValueError(f"backbone_weights: {file!r} is not a safetensors file, or is damaged") from error
        return cls(file=file, sha256=hashlib.sha256(data).hexdigest(), tensors=tensors)

    def load_into(self, network: nn.Module) -> Loaded:
        """Load the weights into every backbone in `network`: a teacher starts with those of the student.

        Returns what was done with their names.

        Raises:
            ValueError: they are weights of another network. The message says what differs.
            WeightsNotFinite: they hold NaN or infinity. The message names the tensors.
        """
        loaded = Loaded()
        for module in network.modules():
            if isinstance(module, Backbone):
                try:
                    loaded = load_weights(module, self.tensors)
                except WeightsNotFinite as error:
                    raise WeightsNotFinite(f"backbone_weights: {self.file!r} is damaged: {error}") from error
                except ValueError as error:
                    raise ValueError(f"backbone_weights: {self.file!r} does not fit the backbone: {error}") from error
        return loaded

    def to_json(self) -> dict[str, str]:
        """Return the record of these weights that a checkpoint keeps."""
        return {"file": self.file, "sha256": self.sha256}


def check_backbone(settings: TrainSettings, initial: InitialWeights | None) -> None:
    """Check that the backbone can be built, takes the weights, and takes a view. What is built is discarded.

    Raises:
        ValueError: there is no such backbone, it does not take such views, or the weights are of another network.
        WeightsNotFinite: the weights hold NaN or infinity.
    """
    with torch.random.fork_rng(devices=[]):
        backbone = build_encoder(settings).backbone
    measured_feature_dim(backbone, settings.image_size)  # smaller views were tried when it was built
    if initial:
        initial.load_into(backbone)
