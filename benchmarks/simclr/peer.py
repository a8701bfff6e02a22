"""lightly's side: the loop of its SimCLR example, as it is or tuned, in a process of its own.

It prints one JSON object. lightly must be installed, as in the environment of `make parity`.
Shapes: B batch, S pixels on a side of a view, P projection.

The network is torchvision's, the optimizer SGD without momentum, and the images are opened with Pillow, as in the
example. The loader goes over the files in one long epoch, so that its workers start once.
"""

from __future__ import annotations

import argparse
import itertools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from benchmarks.simclr.plan import TEMPERATURE, Setting, Training, photographs
from benchmarks.simclr.window import Moment, between
from benchmarks.views.cell import sides as recipe_and_transform
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

LEARNING_RATE = 0.06
LOADED_AHEAD = 2
"""Batches that each worker of a loader makes ahead."""


class Photographs(Dataset[list[Tensor]]):
    """Files, each as two views, over and over."""

    def __init__(self, paths: list[Path], transform: Callable[[Image.Image], list[Tensor]], length: int) -> None:
        self._paths = paths
        self._transform = transform
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, row: int) -> list[Tensor]:
        with Image.open(self._paths[row % len(self._paths)]) as image:
            return self._transform(image.convert("RGB"))


class Network(nn.Module):
    """torchvision's ResNet without its classifier, and lightly's head. It maps (B, 3, S, S) to (B, P)."""

    def __init__(self, name: str) -> None:
        from lightly.models.modules import SimCLRProjectionHead

        super().__init__()
        network = getattr(torchvision.models, name)()
        width = network.fc.in_features
        self.backbone = nn.Sequential(*list(network.children())[:-1])
        self.projection_head = SimCLRProjectionHead(width, width, 128)

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images).flatten(start_dim=1)
        projections: Tensor = self.projection_head(features)
        return projections


class Loop:
    """The network, the loss and the optimizer with a setting."""

    def __init__(self, training: Training, setting: Setting) -> None:
        from lightly.loss import NTXentLoss

        self._setting = setting
        self._layout = torch.channels_last if setting.channels_last else torch.contiguous_format
        self.network = Network(training.network).to(memory_format=self._layout)
        self._criterion = NTXentLoss(temperature=TEMPERATURE)
        self._optimizer = torch.optim.SGD(self.network.parameters(), lr=LEARNING_RATE)

    def step(self, x0: Tensor, x1: Tensor) -> Tensor:
        """Make a step with two views, (B, 3, S, S) each, and return the loss."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self._setting.precision == "bfloat16"):
            loss: Tensor = self._criterion(*self.project(x0, x1))
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss.detach()

    def project(self, x0: Tensor, x1: Tensor) -> tuple[Tensor, ...]:
        """Return the projections of two views, (B, P) each."""
        if self._setting.one_pass:
            return self.network(torch.cat([x0, x1]).to(memory_format=self._layout)).chunk(2)
        return tuple(self.network(x.to(memory_format=self._layout)) for x in (x0, x1))


def turn(training: Training, setting: Setting, paths: list[Path], warm_up: int, steps: int) -> dict[str, float]:
    """Train, and return what an image took after the warm-up. The workers have as much to do at the end as before."""
    if setting.threads:
        torch.set_num_threads(setting.threads)
    loop = Loop(training, setting)
    loaded = warm_up + steps + LOADED_AHEAD * setting.workers
    loader = DataLoader(
        Photographs(paths, recipe_and_transform("simclr", training.image_size)[1], loaded * training.batch_size),
        batch_size=training.batch_size, shuffle=True, drop_last=True, num_workers=setting.workers,
    )  # fmt: skip
    loss = torch.tensor(0.0)
    began = Moment()
    for number, (x0, x1) in enumerate(itertools.islice(loader, warm_up + steps), start=1):
        loss = loop.step(x0, x1)
        if number == warm_up:
            began = Moment()
    ended = Moment()
    if not loss.isfinite():
        raise SystemExit("the loss is not finite")
    return between(began, ended, steps * training.batch_size)


def arguments_of(description: str | None) -> tuple[dict[str, Any], Path]:
    """Parse the command line of a process that measures one turn: JSON, and the folder of images."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("turn", type=json.loads)
    parser.add_argument("images", type=Path)
    arguments = parser.parse_args()
    return arguments.turn, arguments.images


def main() -> None:
    """Measure one turn."""
    wanted, images = arguments_of(__doc__)
    warnings.simplefilter("ignore")
    training, setting = Training(**wanted["training"]), Setting(**wanted["setting"])
    paths = photographs(images, training.num_images)
    print(json.dumps(turn(training, setting, paths, wanted["warm_up"], wanted["steps"])))


if __name__ == "__main__":
    main()
