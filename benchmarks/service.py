"""Measure the cost of the service: training and embedding through it, beside the same work in one bare loop.

Both sides of a pair run in turns, in the same number format and with the same number of threads. The figures are
medians. On a machine that is shared with others, only their ratio counts.

    python -m benchmarks.service training --images cifar10/train
    python -m benchmarks.service embedding --images clothing
"""

from __future__ import annotations

import argparse
import statistics
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
from manyview_server.learn.step import train_step
from manyview_server.learn.views import make_views
from manyview_server.messages.embedding import ModelKey
from manyview_server.supervise.cores import available_cores
from manyview_server.worker.embedding.model_cache import EmbeddingModel, load
from manyview_server.worker.images import decoder

RESULTS = Results("service")
ROUNDS = 3
TRAINING_IMAGES, EPOCHS = 2560, 4
EMBEDDED_IMAGES, EMBED_BATCH = 1000, 64
CONFIG: dict[str, Any] = {
    "backbone": "resnet9",
    "backbone_width": 0.5,
    "image_size": 32,
    "batch_size": 256,
    "memory_bank_size": 1024,
    "precision": "float32",
    "log_every_steps": 1,
    "checkpoint_every_epochs": EPOCHS,
    "evaluation": {"knn_every_epochs": 0},
}


def main() -> None:
    """Measure one part, then print all cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("training", "embedding", "report"))
    parser.add_argument("--images", type=Path, help="a folder of images")
    parser.add_argument("--method", choices=("simclr", "moco"), default="simclr")
    arguments = parser.parse_args()
    if arguments.part != "report":
        if arguments.images is None:
            parser.error("--images is needed to measure")
        paths = sorted(path for path in arguments.images.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
        if arguments.part == "training":
            key = {"part": "training", "method": arguments.method}
            RESULTS.add(
                key, training(paths[:: max(1, len(paths) // TRAINING_IMAGES)][:TRAINING_IMAGES], arguments.method)
            )
        else:
            RESULTS.add({"part": "embedding", "model": "backbones/resnet18"}, embedding(paths[:EMBEDDED_IMAGES]))
    print(report())


def training(paths: list[Path], method: str) -> dict[str, Any]:
    """Measure images per second: of jobs from their second epoch on, and of the loop as 1 / (t_step + t_views)."""
    bare, service = [], []
    with manyview.local() as client:
        dataset = client.upload(paths, dataset="bench")
        for number in range(ROUNDS):
            bare.append(bare_training(paths, method))
            job = client.train(dataset, method, epochs=EPOCHS, config=CONFIG, job_id=f"bench-{number}")
            rows = [event for event in job.metrics(kinds=["scalars"]) if "images_per_second" in event.values]
            job.wait()
            service.append(statistics.median(row["images_per_second"] for row in rows if row.epoch >= 1))
    return summary(bare, service)


def bare_training(paths: list[Path], method: str, steps: int = 12) -> float:
    """Return images per second of views and step alone: 1 / (median t_views + median t_step)."""
    torch.set_num_threads(available_cores())
    settings = resolve(method, CONFIG)
    images = torch.stack([decoder.resize(decoder.decode(path.read_bytes()), 32) for path in paths])
    model = build_method(settings, len(paths)).to(memory_format=torch.channels_last)
    assert settings.batch_size is not None
    optimizer = optimizers.build(settings.optimizer, model, settings.batch_size)
    views_s, step_s = [], []
    for step in range(steps):
        rows = torch.arange(step * 256, (step + 1) * 256) % len(paths)
        began = time.perf_counter()
        views = views_of(images[rows], rows, settings)
        between = time.perf_counter()
        train_step(model, optimizer, views, rows, Moment(step=step, total_steps=steps))
        views_s.append(between - began)
        step_s.append(time.perf_counter() - between)
    return settings.batch_size / (statistics.median(views_s[2:]) + statistics.median(step_s[2:]))


def views_of(images: Tensor, image_ids: Tensor, settings: TrainSettings) -> list[Tensor]:
    """Make the views of a batch as the trainer does."""
    sizes = torch.full((len(images), 2), 32)
    return make_views(
        images, sizes, image_ids, settings.views, image_size=32, seed=0, epoch=1,
        dtype=torch.float32, memory_format=torch.channels_last,
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
        return decoder.resize(decoder.decode(path.read_bytes()), model.image_size)

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
