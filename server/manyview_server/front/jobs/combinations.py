"""The networks and image sizes among which the server chooses if a job leaves them open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """A network and the size of its images."""

    backbone: str
    width: float = 1.0
    image_size: int


MIN_EPOCHS = 30
"""A smaller combination is taken if a larger one makes fewer passes over the images in the time."""
SMALL_SET_IMAGES, SMALL_SET_MIN_EPOCHS = 5_000, 60
"""The same for a data set of at most so many images: a pass over few images has few steps."""
MAX_EPOCHS = 300
"""More passes over few images teach little."""
COMBINATIONS: dict[str, tuple[Combination, ...]] = {
    "cpu": (
        Combination(backbone="resnet18", image_size=128),
        Combination(backbone="resnet18", image_size=64),
        Combination(backbone="resnet9", image_size=64),
        Combination(backbone="resnet9", width=0.5, image_size=64),
        Combination(backbone="resnet9", width=0.25, image_size=64),
    ),
    "cuda": (
        Combination(backbone="resnet50", image_size=224),
        Combination(backbone="resnet18", image_size=224),
        Combination(backbone="resnet18", image_size=128),
        Combination(backbone="resnet18", image_size=64),
    ),
}
"""The choices for each kind of device, the largest first. An image size is never larger than the images themselves."""
UNMEASURED: dict[str, int] = {"cpu": 1, "cuda": 1}
"""The index of the combination that is taken if nothing can be measured."""
SMALL_SET_UNMEASURED: dict[str, int] = {"cpu": 3, "cuda": 1}
"""The same for a data set of at most `SMALL_SET_IMAGES`."""
COSTS = {"resnet50": 4.1, "resnet18": 1.8, "resnet9": 0.9}
"""Billions of multiplications for an image of 224 pixels. They decide which combination is measured first."""
SIDE_MULTIPLE, SMALLEST_SIDE = 4, 16
SMALL_STEM_BELOW, SMALL_STEM_COST = 64, 16
"""A residual network for smaller images has feature maps of four times their side."""


def kind_of(device: str) -> str:
    """Return "cpu" or "cuda"."""
    return device.partition(":")[0]


def is_small_set(num_images: int) -> bool:
    """Has a data set so few images that more passes over them come before a larger network?"""
    return num_images <= SMALL_SET_IMAGES


def min_epochs(num_images: int) -> int:
    """Return how many passes over so many images a combination must make in the time."""
    return SMALL_SET_MIN_EPOCHS if is_small_set(num_images) else MIN_EPOCHS


def unmeasured(device: str, num_images: int) -> int:
    """Return the index of the combination that is taken for so many images if nothing can be measured."""
    return (SMALL_SET_UNMEASURED if is_small_set(num_images) else UNMEASURED)[kind_of(device)]


def fitting_size(image_size: int, short_side: int) -> int:
    """Return an image size that is not larger than most images are. `short_side` 0 means that it is not known."""
    own = short_side // SIDE_MULTIPLE * SIDE_MULTIPLE
    return min(image_size, max(SMALLEST_SIDE, own)) if own else image_size


def relative_cost(settings: Mapping[str, Any]) -> float:
    """Return about how long an image takes with a configuration, in any unit."""
    side, backbone = settings["image_size"], settings["backbone"]
    factor = SMALL_STEM_COST if side < SMALL_STEM_BELOW and backbone in COSTS else 1
    return float(COSTS.get(backbone, 1.0) * settings["backbone_width"] ** 2 * side**2 * factor)
