"""Is learning real, and as good as the peer's? kNN on CIFAR-10, method by method, beside lightly's loop of the recipe.

Protocol: 10,000 training images (the first 1,000 of each class), all 10,000 test images, ResNet-9 at half width with
the small-image stem, 32 px; kNN with the training images as bank, k = 200, temperature 0.1. Labels serve the kNN alone.
Our side trains and embeds through the service, a server in its own process; its seconds run from the request to the
end of the job. The peer's are those of its loop alone, images decoded before.

Cells are (method, system, seed): "ours" and "lightly" train for the same epochs; "ours, equal time" trains for as many
epochs as fit into the time that lightly took beside it. One call measures the next missing cell, in pairs, so that the
two sides of a pair see the same machine; about 5 minutes on 2 quiet cores.

    make bench-quality IMAGES=cifar10 CELLS=3

It runs where lightly is installed, the environment of `make parity`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.quality import cifar10
from benchmarks.quality.recipes import BATCH_SIZE, RECIPES
from benchmarks.quality.report import EQUAL_TIME, LIGHTLY, OURS, report
from benchmarks.results import Results

import manyview
from manyview_server.learn import backbones

RESULTS = Results("quality")
SEEDS = (0, 1, 2)
EPOCHS = 8
MAX_PEER_S = 3600


def main() -> None:
    """Measure the next cells, then print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder with train/CLASS/*.jpg and test/CLASS/*.jpg; none: report")
    parser.add_argument("--method", choices=RECIPES, help="only this one")
    parser.add_argument("--cells", type=int, default=1, help="how many to measure; default: %(default)s")
    arguments = parser.parse_args()
    for _ in range(arguments.cells if arguments.images else 0):
        key = next_cell(arguments.method)
        if key is None:
            break
        print(f"measuring {key}", flush=True)
        RESULTS.add(key, measure(arguments.images, key))
    print(report(RESULTS.cells()))


def next_cell(only: str | None = None) -> dict[str, Any] | None:
    """The first that is missing: baselines, then seed by seed, so that an end at any time leaves whole pairs."""
    keys: list[dict[str, Any]] = [{"system": name} for name in ("raw pixels", "untrained")]
    keys += [
        {"method": method, "system": system, "seed": seed, "epochs": EPOCHS}
        for seed in SEEDS
        for method in ([only] if only else RECIPES)
        for system in (LIGHTLY, OURS, EQUAL_TIME)
    ]
    return next((key for key in keys if RESULTS.find(**key) is None), None)


def measure(folder: Path, key: dict[str, Any]) -> dict[str, Any]:
    """The values of a cell."""
    match key["system"]:
        case "lightly":
            return run_peer(folder, key)
        case "raw pixels" | "untrained":
            return baseline(folder, key["system"])
        case "ours, equal time":
            pair = [RESULTS.find(**{**key, "system": system}) for system in (LIGHTLY, OURS)]
            theirs, ours = (cell["values"]["seconds"] for cell in pair if cell)
            return run_ours(folder, key["method"], key["seed"], max(1, round(EPOCHS * theirs / ours)))
    return run_ours(folder, key["method"], key["seed"], EPOCHS)


def baseline(folder: Path, system: str) -> dict[str, Any]:
    """kNN without any learning."""
    train, test = cifar10.read(folder)
    pixels = [split.pixels() for split in (train, test)]
    if system == "raw pixels":
        features = [cifar10.normalized(part).reshape(len(part), -1) for part in pixels]
    else:
        torch.manual_seed(0)
        network = backbones.build("resnet9", width=0.5, stem="small")
        features = [cifar10.features(network, part) for part in pixels]
    return {"knn_top1": cifar10.top1(train, test, features[0], features[1])}


def run_ours(folder: Path, method: str, seed: int, epochs: int) -> dict[str, Any]:
    """Train through a server in its own process, embed over gRPC."""
    train, test = cifar10.read(folder)
    with manyview.local() as client:
        dataset = client.upload(train.paths, dataset="cifar10")
        began = time.monotonic()
        job = client.train(dataset, method, epochs=epochs, config=config(method, seed))
        job.wait()
        seconds = time.monotonic() - began
        features = [client.embed(split.paths, job).array for split in (train, test)]
        alerts = [event.values for event in job.metrics(kinds=["alert"], follow=False)]
    top1 = cifar10.top1(train, test, features[0], features[1])
    return {"knn_top1": top1, "seconds": seconds, "epochs": epochs, "alerts": alerts, "config": job.refresh().config}


def config(method: str, seed: int) -> dict[str, Any]:
    """The recipe as a configuration: with two whole views and without blur."""
    preset = {"simclr": "simclr_small", "moco": "moco_small", "dino": "dino_small", "barlow_twins": "byol"}
    views: dict[str, Any] = {"preset": preset.get(method, method), "blur": {"probability": 0.0}}
    shared = {"backbone": "resnet9", "backbone_width": 0.5, "image_size": 32, "batch_size": BATCH_SIZE, "seed": seed}
    optimizer: dict[str, Any] = {
        "name": "sgd",
        "learning_rate": 0.06 * BATCH_SIZE / 128,
        "momentum": 0.9,
        "weight_decay": 5e-4,
    }
    optimizer["clip_gradient_norm"] = None  # what the peer does not do either
    own = {**RECIPES[method], **({"projection_batch_norm": False} if method == "moco" else {})}
    return {**shared, **own, "views": views, "optimizer": optimizer, "evaluation": {"knn_every_epochs": 0}}


def run_peer(folder: Path, key: dict[str, Any]) -> dict[str, Any]:
    """One cell of lightly's, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.quality.peer", "--images", str(folder), "--method", key["method"]]
    command += ["--seed", str(key["seed"]), "--epochs", str(key["epochs"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MAX_PEER_S, check=False)
    if done.returncode != 0:
        sys.exit(f"the peer failed:\n{done.stderr[-2000:]}")
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


if __name__ == "__main__":
    main()
