"""Measure the cost of the service: training and embedding through it, beside the same work in one bare loop.

Both sides of a pair run in turns, in the same number format and with the same number of threads. The figures are
medians. On a machine that is shared with others, only their ratio counts. The loop of a training runs in a process with
the environment of a worker: without its heap that is kept, a step takes a fifth longer.

    python -m benchmarks.service training --images cifar10/train
    python -m benchmarks.service training --images clothing --backbone resnet18 --image-size 64
    python -m benchmarks.service embedding --images clothing
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.results import Results, table
from torch import Tensor

import manyview
from manyview_server.learn import optimizers
from manyview_server.learn.methods import Moment, build_method, resolve
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.step import Precision, train_step
from manyview_server.learn.views import make_views
from manyview_server.messages.embedding import ModelKey
from manyview_server.supervise.cores import available_cores
from manyview_server.supervise.process import environment
from manyview_server.worker.embedding.model_cache import EmbeddingModel, load
from manyview_server.worker.images import decoder
from manyview_server.worker.job_images.pixel_store import picked
from manyview_server.worker.precision import DTYPES

RESULTS = Results("service")
ROUNDS = 3
BARE_STEPS, FIRST_STEPS = 12, 2
"""The steps of the loop, and those at its start that do not count."""
STEPS_PER_EPOCH, EPOCHS = 10, 4
EMBEDDED_IMAGES, EMBED_BATCH = 1000, 64
CONFIGS: dict[str, dict[str, Any]] = {
    "resnet9": {"backbone_width": 0.5, "batch_size": 256, "precision": "float32"},
    "resnet18": {"batch_size": 64, "precision": "bfloat16"},
}
"""The networks of the trainings, each with what fits them."""
COMMON: dict[str, Any] = {
    "memory_format": "channels_last",
    "log_every_steps": 1,
    "checkpoint_every_epochs": EPOCHS,
    "evaluation": {"knn_every_epochs": 0},
}


def main() -> None:
    """Measure one part, then print all cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("training", "embedding", "report", "bare"))
    parser.add_argument("--images", type=Path, help="a folder of images")
    parser.add_argument("--method", choices=("simclr", "moco"), default="simclr")
    parser.add_argument("--backbone", choices=CONFIGS, default="resnet9")
    parser.add_argument("--image-size", type=int, default=32)
    arguments = parser.parse_args()
    if arguments.part != "report":
        if arguments.images is None:
            parser.error("--images is needed to measure")
        paths = sorted(path for path in arguments.images.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
        size, method, backbone = arguments.image_size, arguments.method, arguments.backbone
        if arguments.part == "embedding":
            RESULTS.add({"part": "embedding", "model": "backbones/resnet18"}, embedding(paths[:EMBEDDED_IMAGES]))
        else:
            config = {**COMMON, "backbone": backbone, "image_size": size, **CONFIGS[backbone]}
            if method == "moco":
                config["memory_bank_size"] = 1024
            num_images = STEPS_PER_EPOCH * config["batch_size"]
            paths = paths[:: max(1, len(paths) // num_images)][:num_images]
            if arguments.part == "bare":
                print(json.dumps(bare_training(paths, method, config)))
                return
            key = {"part": "training", "method": method, "backbone": backbone, "size": f"{size} px"}
            RESULTS.add(key, training(paths, method, config, sys.argv[2:]))
    print(report())


def training(paths: list[Path], method: str, config: dict[str, Any], arguments: list[str]) -> dict[str, Any]:
    """Measure images per second: of jobs from their second epoch on, and of the loop as 1 / (t_step + t_views).

    `arguments` are those of the command line, with which another process measures the loop.
    """
    bare, service, views = [], [], []
    command = [sys.executable, "-m", "benchmarks.service", "bare", *arguments]
    with manyview.local() as client:
        dataset = client.upload(paths, dataset="bench")
        for number in range(ROUNDS):
            found = subprocess.run(
                command, stdout=subprocess.PIPE, check=True, text=True, env=environment(available_cores())
            )
            views_s, step_s = json.loads(found.stdout.splitlines()[-1])
            bare.append(config["batch_size"] / (views_s + step_s))
            views.append(views_s / (views_s + step_s))
            job = client.train(dataset, method, epochs=EPOCHS, config=config, job_id=f"bench-{number}")
            rows = [event for event in job.metrics(kinds=["scalars"]) if "images_per_second" in event.values]
            job.wait()
            service.append(statistics.median(row["images_per_second"] for row in rows if row.epoch >= 1))
    return {**summary(bare, service), "views_fraction": statistics.median(views)}


def bare_training(paths: list[Path], method: str, config: dict[str, Any]) -> tuple[float, float]:
    """Return the median seconds of views and of steps, without anything else."""
    torch.set_num_threads(available_cores())
    settings = resolve(method, config)
    assert settings.batch_size is not None
    size = settings.image_size if settings.image_size <= 32 else 2 * settings.image_size  # as the jobs decode them
    images = torch.stack([decoder.resize(decoder.decode(path.read_bytes()), size) for path in paths])
    images = images.contiguous(memory_format=torch.channels_last)
    model = build_method(settings, len(paths)).to(memory_format=torch.channels_last)
    optimizer = optimizers.build(settings.optimizer, model, settings.batch_size)
    views_s, step_s = [], []
    for step in range(BARE_STEPS):
        rows = torch.arange(step * settings.batch_size, (step + 1) * settings.batch_size) % len(paths)
        began = time.perf_counter()
        views = views_of(picked(images, rows), rows, settings)
        between = time.perf_counter()
        moment = Moment(step=step, total_steps=BARE_STEPS)
        train_step(model, optimizer, views, rows, moment, precision=precision_of(settings))
        views_s.append(between - began)
        step_s.append(time.perf_counter() - between)
    return statistics.median(views_s[FIRST_STEPS:]), statistics.median(step_s[FIRST_STEPS:])


def precision_of(settings: TrainSettings) -> Precision:
    """Return the number format of a configuration that names one."""
    assert settings.precision != "auto"
    return settings.precision


def views_of(images: Tensor, image_ids: Tensor, settings: TrainSettings) -> list[Tensor]:
    """Make the views of a batch as the trainer does."""
    sizes = torch.full((len(images), 2), images.shape[-1])
    return make_views(
        images, sizes, image_ids, settings.views, image_size=settings.image_size, seed=0, epoch=1,
        dtype=DTYPES[precision_of(settings)], memory_format=torch.channels_last,
    )  # fmt: skip


def embedding(paths: list[Path]) -> dict[str, Any]:
    """Measure images per second over gRPC from files, and of a loop that decodes in threads and embeds, with the same
    model."""
    bare, service = [], []
    with manyview.local() as client:
        expected, _ = bare_embedding(paths[:EMBED_BATCH])
        got = client.embed(paths[:EMBED_BATCH], "backbones/resnet18").array
        cosine = (expected * got).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(got, axis=1)
        for _ in range(ROUNDS):
            bare.append(bare_embedding(paths)[1])
            began = time.perf_counter()
            client.embed(paths, "backbones/resnet18")
            service.append(len(paths) / (time.perf_counter() - began))
    return summary(bare, service) | {"lowest_cosine": float(cosine.min())}


def bare_embedding(paths: list[Path]) -> tuple[np.ndarray[Any, Any], float]:
    """Return embeddings (N, D) and images per second: all cores decode a batch, then all cores embed it."""
    cores = available_cores()
    torch.set_num_threads(cores)
    key = ModelKey(name="", checkpoint_dir="", backbone="resnet18", weights_file="", output="backbone")
    model = load(key, torch.device("cpu"))
    began = time.perf_counter()
    with ThreadPoolExecutor(cores) as pool:
        starts = range(0, len(paths), EMBED_BATCH)
        rows = [embed_batch(paths[start : start + EMBED_BATCH], model, pool) for start in starts]
    return torch.cat(rows).numpy(), len(paths) / (time.perf_counter() - began)


def embed_batch(paths: list[Path], model: EmbeddingModel, pool: ThreadPoolExecutor) -> Tensor:
    """Embed files, (B, D)."""

    def read(path: Path) -> Tensor:
        return decoder.resize(decoder.decode(path.read_bytes()), model.preprocessing.image_size)

    return model.embed(torch.stack(list(pool.map(read, paths))))


def summary(bare: list[float], service: list[float]) -> dict[str, Any]:
    """Return the rounds of both sides and the ratio of their medians."""
    ratio = statistics.median(service) / statistics.median(bare)
    return {"bare_images_per_second": bare, "service_images_per_second": service, "ratio": ratio}


def report() -> str:
    """Return all cells as a table."""
    rows = [["what", "bare images/s", "service images/s", "ratio"]]
    for cell in RESULTS.cells():
        values = cell["values"]
        sides = (statistics.median(values[f"{side}_images_per_second"]) for side in ("bare", "service"))
        rows.append([" ".join(cell["key"].values()), *(f"{side:.1f}" for side in sides), f"{values['ratio']:.2f}"])
    return table(rows)


if __name__ == "__main__":
    main()
