from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from manyview_server.learn import backbones, plugins
from manyview_server.learn.backbones import Backbone, from_plugin
from manyview_server.learn.plugins import PluginBroken


class Mean(Backbone):
    """The mean of each channel, `width` times over."""

    def __init__(self, *, width: float = 1.0, image_size: int = 0) -> None:
        super().__init__()
        if image_size == 13:
            raise ValueError("13 pixels bring bad luck")
        self.options = {"width": width, "image_size": image_size}
        self.feature_dim = 3 * round(width)

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)).repeat(1, self.feature_dim // 3)


class Wrong(Mean):
    def __init__(self) -> None:
        super().__init__()
        self.feature_dim = 5


class Flat(Mean):
    def forward(self, images: Tensor) -> Tensor:
        return images


class Picky(Mean):
    def forward(self, images: Tensor) -> Tensor:
        return images.view(1, 7, 7)


def failing() -> Backbone:
    raise KeyError("a secret")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "mean": Mean,
        "wrong": Wrong,
        "flat": Flat,
        "picky": Picky,
        "failing": failing,
        "linear": lambda: nn.Linear(1, 1),
        "number": 7,
    }
    monkeypatch.setattr(plugins, "names", lambda group: tuple(found))
    monkeypatch.setattr(plugins, "load_one", lambda group, name: found[name])


def test_a_plugin_is_told_what_it_has_parameters_for() -> None:
    network = backbones.build("mean", width=2.0, image_size=16)
    assert isinstance(network, Mean)
    assert network.options == {"width": 2.0, "image_size": 16}
    assert network(torch.ones(5, 3, 16, 16)).shape == (5, network.feature_dim) == (5, 6)
    assert "mean" in backbones.names()
    assert backbones.accepted_options("mean") == ("image_size", "width")
    assert "mean" in backbones.names_taking("width")
    assert "mean" not in backbones.names_taking("stem")
    assert "number" not in backbones.names_taking("width")
    with pytest.raises(ValueError, match="patch_size has no effect on backbone 'mean'"):
        backbones.build("mean", patch_size=4)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("wrong", "its feature_dim is 5, but it returns 3 features"),
        ("failing", r"building it failed \(KeyError\)"),
        ("linear", "it returned a Linear instead of a Backbone"),
        ("number", "it must be a callable that returns a Backbone"),
    ],
)
def test_a_plugin_that_does_not_keep_to_the_interface_is_refused(name: str, why: str) -> None:
    with pytest.raises(PluginBroken, match=why) as refused:
        backbones.build(name)
    assert (refused.value.error.group, refused.value.error.name) == (from_plugin.GROUP, name)
    assert "a secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("flat", r"backbone 'flat': it does not turn images \(B, 3, H, W\) into features"),
        ("picky", "backbone 'picky': it does not take images of 224 x 224 pixels"),
    ],
)
def test_a_plugin_that_does_not_take_such_images_says_so(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        backbones.build(name)


def test_a_plugins_own_words_reach_the_user() -> None:
    with pytest.raises(ValueError, match="13 pixels bring bad luck"):
        backbones.build("mean", image_size=13)
