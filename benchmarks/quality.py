"""Is learning real? kNN on CIFAR-10 of embeddings trained through the service, beside raw pixels and no training.

Protocol: 10,000 training images (the first 1,000 of each class), all 10,000 test images, ResNet-9 at half width with
the small-image stem, 32 px; kNN with the training images as bank, k = 200, temperature 0.1. Labels serve the kNN alone.
One call measures one cell (method, seed) with the method's defaults; a cell takes about 10 minutes on 2 cores.

    python -m benchmarks.quality --images cifar10 --method moco --seed 0
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from benchmarks.results import Results, table
from PIL import Image

import manyview
from manyview_server.learn import backbones
from manyview_server.learn.evaluation import knn_top1

RESULTS = Results("quality")
TRAIN_IMAGES_PER_CLASS = 1000
CONFIG = {"backbone": "resnet9", "backbone_width": 0.5, "image_size": 32, "evaluation": {"knn_every_epochs": 0}}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Measure one cell, then print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder with train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("--method", choices=("simclr", "moco"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=4, help="default: %(default)s, 10 minutes on 2 cores")
    arguments = parser.parse_args()
    if arguments.method:
        if arguments.images is None:
            parser.error("--images is needed to measure a cell")
        key = {"method": arguments.method, "seed": arguments.seed, "epochs": arguments.epochs}
        if RESULTS.find(**key) is None:
            RESULTS.add(key, measure(arguments.images, **key))
    print(report())


def measure(folder: Path, *, method: str, seed: int, epochs: int) -> dict[str, Any]:
    """Train through a server in its own process, embed over gRPC, judge by kNN."""
    classes = sorted((folder / "train").iterdir())
    train = [path for kind in classes for path in sorted(kind.iterdir())[:TRAIN_IMAGES_PER_CLASS]]
    test = sorted((folder / "test").rglob("*.jpg"))
    labels = [torch.tensor(label_numbers(paths)) for paths in (train, test)]

    def top1(train_features: npt.NDArray[Any], test_features: npt.NDArray[Any]) -> float:
        tensors = (torch.tensor(part, dtype=torch.float32) for part in (test_features, train_features))
        queries, bank = tensors
        return float(knn_top1(queries, labels[1], bank, labels[0], num_classes=10, k=200, temperature=0.1))

    with manyview.local() as client:
        dataset = client.upload(train, dataset="cifar10")
        began = time.monotonic()
        job = client.train(dataset, method, epochs=epochs, config={**CONFIG, "seed": seed})
        rows = [event.values for event in job.metrics(kinds=["scalars"])]
        job.wait()
        seconds = time.monotonic() - began
        learned = top1(client.embed(train, job).array, client.embed(test, job).array)
        losses = [row["loss"] for row in rows if "loss" in row]
    pixels = [read(paths) for paths in (train, test)]
    untrained = backbones.build("resnet9", width=0.5, stem="small").eval()
    return {
        "knn_top1": learned,
        "knn_top1_raw_pixels": top1(*(part.reshape(len(part), -1) for part in pixels)),
        "knn_top1_untrained": top1(*(features(untrained, part) for part in pixels)),
        "seconds_from_submit_to_success": seconds,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "config": job.info.config,
    }


def label_numbers(paths: list[Path]) -> list[int]:
    """The class folder of each path as a number."""
    names = sorted({path.parent.name for path in paths})
    return [names.index(path.parent.name) for path in paths]


def read(paths: list[Path]) -> npt.NDArray[np.float32]:
    """(N, 32, 32, 3), normalised."""
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    return ((images / 255 - MEAN) / STD).astype(np.float32)


@torch.inference_mode()
def features(backbone: torch.nn.Module, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N, D) of (N, H, W, 3)."""
    batches = torch.from_numpy(images).permute(0, 3, 1, 2).split(500)
    return torch.cat([backbone(batch) for batch in batches]).numpy()


def report() -> str:
    """All cells as a table."""
    rows = [["method", "seed", "epochs", "raw pixels", "untrained", "learned", "gain", "loss", "minutes"]]
    for cell in RESULTS.cells():
        key, values = cell["key"], cell["values"]
        raw, untrained, learned = (100 * values[f"knn_top1{name}"] for name in ("_raw_pixels", "_untrained", ""))
        loss = f"{values['first_loss']:.2f} -> {values['last_loss']:.2f}"
        figures = [f"{raw:.1f}", f"{untrained:.1f}", f"{learned:.1f}", f"{learned - max(raw, untrained):+.1f}", loss]
        minutes = f"{values['seconds_from_submit_to_success'] / 60:.1f}"
        rows.append([key["method"], str(key["seed"]), str(key["epochs"]), *figures, minutes])
    return table(rows)


if __name__ == "__main__":
    main()
