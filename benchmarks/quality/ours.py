"""Our side: a training job of a server in its own process, and embeddings over gRPC.

It prints one JSON object.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.quality import cifar10
from benchmarks.quality.recipes import BATCH_SIZE, CLIP_GRADIENT_NORM, RECIPES, cell_arguments

import manyview

PRESETS = {"simclr": "simclr_small", "moco": "moco_small", "dino": "dino_small", "barlow_twins": "byol"}


def config(method: str, seed: int) -> dict[str, Any]:
    """Return the recipe as a configuration, with two whole views and without blur."""
    optimizer: dict[str, Any] = {
        "name": "sgd",
        "learning_rate": 0.06 * BATCH_SIZE / 128,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "clip_gradient_norm": CLIP_GRADIENT_NORM.get(method),
    }
    if method == "byol":  # our loss is the paper's, four times lightly's: these are its steps and its decay
        optimizer |= {"learning_rate": optimizer["learning_rate"] / 4, "weight_decay": 4 * optimizer["weight_decay"]}
    return {
        "backbone": "resnet9",
        "backbone_width": 0.5,
        "image_size": 32,
        "batch_size": BATCH_SIZE,
        "seed": seed,
        **RECIPES[method],
        **({"projection_batch_norm": False} if method == "moco" else {}),
        "views": {"preset": PRESETS.get(method, method), "blur": {"probability": 0.0}},
        "optimizer": optimizer,
        "evaluation": {"knn_every_epochs": 0},
    }


def train(folder: Path, method: str, seed: int, epochs: int) -> dict[str, Any]:
    """Train and evaluate, and return the values of the cell."""
    train, test = cifar10.read(folder)
    with manyview.local() as client:
        dataset = client.upload(train.paths, dataset="cifar10")
        began, cpu_began = time.monotonic(), cpu_seconds_of_children()
        job = client.train(dataset, method, epochs=epochs, config=config(method, seed))
        info = job.wait()
        values = {"seconds": time.monotonic() - began, "cpu_seconds": cpu_seconds_of_children() - cpu_began}
        alerts = [event.values for event in job.metrics(kinds=["alert"], follow=False)]
        features = [client.embed(split.paths, job).array for split in (train, test)]
    top1 = cifar10.top1(train, test, features[0], features[1])
    return {"knn_top1": top1, **values, "epochs": epochs, "alerts": alerts, "config": info.config}


def cpu_seconds_of_children() -> float:
    """Return the CPU time of the server, a child of this process, and of its trainers that have ended."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # the process has just ended
            continue
        if int(fields[1]) == os.getpid():
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure one cell."""
    arguments = cell_arguments(__doc__)
    print(json.dumps(train(arguments.images, arguments.method, arguments.seed, arguments.epochs)))


if __name__ == "__main__":
    main()
