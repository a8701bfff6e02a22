"""Measure whether the methods learn, and as well as lightly's: kNN on CIFAR-10 for each method on both sides.

Protocol: 10,000 training images (the first 1,000 of each class), all 10,000 test images, ResNet-9 at half width with
the small-image stem, 32 px; kNN with the training images as bank, k = 200, temperature 0.1. Labels serve only the kNN.
Our side trains and embeds through the service, with a server in its own process. Its time runs from the request to the
end of the job, and counts the server and the trainer. The peer's time is that of its loop alone, with its workers, on
images that were decoded before.

Cells are (method, system, seed). "ours" and "lightly" train for the same epochs. "ours, equal time" trains for as many
epochs as fit into the time that lightly took. Two cells are measured side by side, each on one half of the cores, so
that the two sides see the same machine. Times are compared in CPU-seconds: with one core each, these equal the wall
time on an idle machine, and they are the same on a busy one. A cell takes about 5 minutes on 2 cores. A cell that was
measured is not measured again.

    make bench-quality IMAGES=cifar10 CELLS=3

lightly must be installed, as in the environment of `make parity`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from benchmarks.quality import cifar10
from benchmarks.quality.recipes import RECIPES
from benchmarks.quality.report import EQUAL_TIME, LIGHTLY, OURS, report
from benchmarks.results import Results

from manyview_server.learn import backbones

RESULTS = Results("quality")
SEEDS = (0, 1, 2)
EPOCHS = 4
MAX_CELL_S = 7200


def main() -> None:
    """Measure the next cells, then print all cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    images_help = "folder with train/CLASS/*.jpg and test/CLASS/*.jpg; without it, only print the report"
    parser.add_argument("--images", type=Path, help=images_help)
    parser.add_argument("--method", choices=RECIPES, help="measure only this method")
    parser.add_argument("--cells", type=int, default=1, help="number of cells to measure; default: %(default)s")
    arguments = parser.parse_args()
    if arguments.images:
        cells = Cells(keys(arguments.method), arguments.cells)
        cores = sorted(os.sched_getaffinity(0))
        halves = [cores[: len(cores) // 2], cores[len(cores) // 2 :]] if len(cores) > 1 else [cores]
        with ThreadPoolExecutor(len(halves)) as pool:
            for done in [pool.submit(cells.measure, arguments.images, half) for half in halves]:
                done.result()
    print(report(RESULTS.cells()))


def keys(only: str | None = None) -> list[dict[str, Any]]:
    """Return the keys of all cells: baselines, then seed by seed, so that whole pairs remain whenever it is stopped."""
    return [{"system": name} for name in ("raw pixels", "untrained")] + [
        {"method": method, "system": system, "seed": seed, "epochs": EPOCHS}
        for seed in SEEDS
        for method in ([only] if only else RECIPES)
        for system in (LIGHTLY, OURS, EQUAL_TIME)
    ]


class Cells:
    """The cells that are not measured yet, shared by the threads that measure."""

    def __init__(self, keys: list[dict[str, Any]], count: int) -> None:
        self._waiting = [key for key in keys if RESULTS.find(**key) is None][:count]
        self._lock = threading.Lock()

    def measure(self, folder: Path, cores: list[int]) -> None:
        """Measure one cell after the other on these cores. Processes inherit the cores from the thread that starts
        them."""
        os.sched_setaffinity(0, cores)
        while (key := self._take()) is not None:
            print(f"measuring {key}", flush=True)
            values = measure(folder, key)
            with self._lock:
                RESULTS.add(key, {**values, "cores": len(cores)})

    def _take(self) -> dict[str, Any] | None:
        """Take the first cell that can be measured now, or return None if every remaining cell waits for another
        one."""
        with self._lock:
            for key in self._waiting:
                if all(RESULTS.find(**needed) for needed in needs(key)):
                    self._waiting.remove(key)
                    return key
        return None


def needs(key: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the keys of the cells that must be measured before this one."""
    return [{**key, "system": system} for system in (LIGHTLY, OURS)] if key["system"] == EQUAL_TIME else []


def measure(folder: Path, key: dict[str, Any]) -> dict[str, Any]:
    """Measure a cell, and return its values."""
    match key["system"]:
        case "lightly":
            return trained(folder, "peer", key, EPOCHS)
        case "raw pixels" | "untrained":
            return baseline(folder, key["system"])
        case "ours, equal time":
            pair = [RESULTS.find(**needed) for needed in needs(key)]
            theirs, ours = (cell["values"]["cpu_seconds"] for cell in pair if cell)
            return trained(folder, "ours", key, max(1, int(EPOCHS * theirs / ours)))
    return trained(folder, "ours", key, EPOCHS)


def baseline(folder: Path, system: str) -> dict[str, Any]:
    """Measure kNN without any learning."""
    train, test = cifar10.read(folder)
    pixels = [split.pixels() for split in (train, test)]
    if system == "raw pixels":
        features = [cifar10.normalized(part).reshape(len(part), -1) for part in pixels]
    else:
        torch.manual_seed(0)
        network = backbones.build("resnet9", width=0.5, stem="small")
        features = [cifar10.features(network, part) for part in pixels]
    return {"knn_top1": cifar10.top1(train, test, features[0], features[1])}


def trained(folder: Path, module: str, key: dict[str, Any], epochs: int) -> dict[str, Any]:
    """Train with one of the systems, in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.quality.{module}", "--images", str(folder), "--method", key["method"]]
    command += ["--seed", str(key["seed"]), "--epochs", str(epochs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MAX_CELL_S, check=False)
    if done.returncode != 0:
        sys.exit(f"{module} failed:\n{done.stderr[-2000:]}")
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


if __name__ == "__main__":
    main()
