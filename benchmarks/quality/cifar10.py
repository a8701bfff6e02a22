"""The benchmark's part of CIFAR-10: the first 1,000 training images of each class, all test images, and kNN.

Shapes: N images of 32 x 32 pixels, D feature width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from manyview_server.learn.evaluation.knn import knn_rankings, topk_accuracy

TRAIN_IMAGES_PER_CLASS = 1000
K, TEMPERATURE = 200, 0.1
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Split:
    """Files of images, with their classes as numbers."""

    paths: list[Path]
    labels: torch.Tensor

    @classmethod
    def of(cls, folder: Path, limit: int | None = None) -> Split:
        """List the images CLASS/*.jpg in `folder`, at most `limit` of each class."""
        found = [
            (path, at) for at, kind in enumerate(sorted(folder.iterdir())) for path in sorted(kind.iterdir())[:limit]
        ]
        return cls([path for path, _ in found], torch.tensor([at for _, at in found]))

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Read the pixels, (N, 32, 32, 3)."""
        return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in self.paths])


def read(folder: Path) -> tuple[Split, Split]:
    """Return the training images and the test images."""
    return Split.of(folder / "train", TRAIN_IMAGES_PER_CLASS), Split.of(folder / "test")


def top1(train: Split, test: Split, train_features: Array, test_features: Array) -> float:
    """Return the kNN accuracy with the training images as bank, k = 200 and temperature 0.1."""
    queries, bank = (torch.tensor(part, dtype=torch.float32) for part in (test_features, train_features))
    ranking = knn_rankings(queries, bank, train.labels, 10, [(K, TEMPERATURE)])[K, TEMPERATURE]
    return float(topk_accuracy(ranking, test.labels, 1))


@torch.inference_mode()
def features(network: torch.nn.Module, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the features (N, D) of pixels (N, 32, 32, 3), in evaluation mode."""
    network.eval()
    batches = torch.from_numpy(normalized(pixels)).permute(0, 3, 1, 2).split(500)
    return torch.cat([network(batch) for batch in batches]).numpy()


def normalized(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Normalize pixels (N, 32, 32, 3) with ImageNet's statistics."""
    return ((pixels / 255 - MEAN) / STD).astype(np.float32)
