"""A network of another library as a backbone, under that library's parameter names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from manyview_server.learn.backbones import positions
from manyview_server.learn.backbones.backbone import Backbone, NoTokens

INNER = "network."
POSITIONS = ("pos_embed", "encoder.pos_embedding")
"""The learned positions of timm's and of torchvision's vision transformers."""


class LibraryNetwork(Backbone):
    """Wraps the network. Its state_dict has the parameter names of the network, without a prefix.

    Dropout and stochastic depth, which some libraries put into their networks for supervised training, are off: a
    resumed job could not draw the same random numbers again.
    """

    def __init__(self, network: nn.Module, feature_dim: int, left_aside: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.feature_dim = feature_dim
        self.left_aside = left_aside
        for module in network.modules():
            _draw_nothing(module)
        self.register_state_dict_post_hook(_without_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_prefix)  # type: ignore[no-untyped-call]

    def tokens(self, images: Tensor) -> tuple[Tensor | None, Tensor]:
        num_first = getattr(self.network, "num_prefix_tokens", None)
        found = self.network.forward_features(images) if num_first is not None else None  # type: ignore[operator]
        if not isinstance(found, Tensor) or found.ndim != 3:
            raise NoTokens("it is not a vision transformer whose tokens its library returns")
        has_class_token = getattr(self.network, "cls_token", None) is not None
        return found[:, 0] if has_class_token else None, found[:, num_first:]

    def fitted(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Drop the layers that are `left_aside`, and resample the positions of a vision transformer of another size."""
        fitted, own = super().fitted(tensors), self.state_dict()
        for name in POSITIONS:
            if name in fitted and name in own:
                fitted[name] = positions.fitted(fitted[name], own[name])
        return fitted

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(images)
        return features


def _draw_nothing(module: nn.Module) -> None:
    if isinstance(module, nn.modules.dropout._DropoutNd) or type(module).__name__ == "StochasticDepth":
        vars(module)["p"] = 0.0
    if type(module).__name__ == "DropPath":
        vars(module)["drop_prob"] = 0.0


def _without_prefix(module: nn.Module, state: dict[str, Any], prefix: str, metadata: object) -> None:
    for name in [name for name in state if name.startswith(prefix + INNER)]:
        state[prefix + name.removeprefix(prefix + INNER)] = state.pop(name)


def _with_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *rest: object) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[prefix + INNER + name.removeprefix(prefix)] = state.pop(name)
