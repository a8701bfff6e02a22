"""What a job begins with: weights of the operator's, from a file in the server's directory of weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from manyview_server.learn.backbones import Backbone, WeightsNotFinite, load_weights


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """The tensors of a file, and which file they are of."""

    file: str
    """Its path in the directory of weights."""
    sha256: str
    """Of its bytes, in hexadecimal."""
    tensors: Mapping[str, Tensor] = field(repr=False)

    @classmethod
    def read(cls, directory: Path, file: str) -> InitialWeights:
        """The file of that path in `directory`; links in it are followed, they are the operator's.

        Raises:
            ValueError: the path leads outside, there is no such file, or it is no safetensors file.
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
            raise ValueError(f"backbone_weights: {file!r} is no safetensors file, or is damaged") from error
        return cls(file=file, sha256=hashlib.sha256(data).hexdigest(), tensors=tensors)

    def put_into(self, network: nn.Module) -> None:
        """Load the weights into every backbone in `network`: a teacher starts with those of the student.

        Raises:
            ValueError: they are of another network. The message says what differs.
            WeightsNotFinite: they hold NaN or infinity. The message names the tensors.
        """
        for module in network.modules():
            if isinstance(module, Backbone):
                try:
                    load_weights(module, self.tensors)
                except WeightsNotFinite as error:
                    raise WeightsNotFinite(f"backbone_weights: {self.file!r} is damaged: {error}") from error
                except ValueError as error:
                    raise ValueError(f"backbone_weights: {self.file!r} does not fit the backbone: {error}") from error

    def to_json(self) -> dict[str, str]:
        """What a run says it began with."""
        return {"file": self.file, "sha256": self.sha256}
