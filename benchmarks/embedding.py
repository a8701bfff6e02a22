"""Measure embedding on a CPU: one image at a time, a busy server, and a server that also trains.

Each part has two sides that take turns in one run. Their CPU seconds stand beside the wall time, and `others` is the
number of cores that other programs used. The images are JPEG files as they are stored; the network is ResNet-18.

    python -m benchmarks.embedding network --size 224
    python -m benchmarks.embedding prepare --images clothing --folder /tmp/embedding
    python -m benchmarks.embedding single --size 224 --images clothing --folder /tmp/embedding
    python -m benchmarks.embedding busy --size 224 --images clothing --folder /tmp/embedding
    python -m benchmarks.embedding beside --size 64 --images clothing --folder /tmp/embedding
    python -m benchmarks.embedding report
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.peers.load import Level, call_in_tasks, first_images, lowest_cosine
from benchmarks.peers.model_files import job_name, server_data, weights
from benchmarks.peers.usage import machine_cpu_s, tree_cpu_s
from benchmarks.results import Results, table
from safetensors.torch import load_file

import manyview
from benchmarks.peers import callers, models
from manyview_server.learn import backbones
from manyview_server.learn.views.recipe import NormalizeSettings
from manyview_server.messages.embedding import ModelKey
from manyview_server.store.jobs import checkpoints
from manyview_server.supervise.cores import available_cores
from manyview_server.worker.embedding.fused_resnet import fuse_resnets
from manyview_server.worker.embedding.model_cache import EmbeddingModel, fold_batch_norms, load
from manyview_server.worker.images import decoder
from manyview_server.worker.preprocess import Preprocess

RESULTS = Results("embedding")
BATCHES, NETWORK_ROUNDS = {64: (1, 8, 32), 224: (1, 8)}, 5
CALLS, BLOCK, WARM_UP = 150, 5, 10
ROUNDS, BUSY_IMAGES, BUSY_CALLERS = 3, {64: 1500, 224: 320}, 32
ENGINE_BATCH = {64: 32, 224: 8}
WINDOW_S = 20.0
Values = dict[str, Any]


def main() -> None:
    """Measure one cell, or print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("prepare", *PARTS, "report"))
    parser.add_argument("--images", type=Path, help="a folder of JPEG files")
    parser.add_argument("--folder", type=Path, help="where the server keeps its data and the models their weights")
    parser.add_argument(
        "--size", type=int, choices=(64, 224), default=64, help="pixels on a side of the network's input"
    )
    parser.add_argument("--format", choices=("float32", "bfloat16"), default="float32", help="the number format")
    arguments = parser.parse_args()
    if arguments.part not in ("network", "report"):
        if arguments.images is None or arguments.folder is None:
            parser.error("--images and --folder are needed to measure")
        models.prepare(arguments.folder, arguments.images)
    if arguments.part in PARTS:
        key = {"part": arguments.part, "image_size": arguments.size, "number_format": arguments.format}
        jpegs = first_images(arguments.images, 1500) if arguments.images else []
        RESULTS.add(key, PARTS[arguments.part](arguments.folder, jpegs, **key))
    print(report())


def network(_folder: Path, _jpegs: list[bytes], *, image_size: int, number_format: str, **_key: Any) -> Values:
    """Measure the CPU milliseconds of an image in the network, on one core: eager, with its batch norms folded and in
    channels_last, and as the embedder computes it."""
    torch.set_num_threads(1)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[number_format]
    eager = backbones.build("resnet18", image_size=image_size, stem="imagenet").eval().requires_grad_(False).to(dtype)
    folded = copy.deepcopy(eager)
    fold_batch_norms(folded)
    folded.to(memory_format=torch.channels_last)
    sides = {"eager": eager, "folded": folded, "fused": fuse_resnets(copy.deepcopy(folded), image_size, dtype)}
    found: Values = {}
    with torch.inference_mode(), others() as seen:
        for batch in BATCHES[image_size]:
            images = torch.randn(batch, 3, image_size, image_size, dtype=dtype)
            ms: dict[str, list[float]] = {side: [] for side in sides}
            for number in range(1 + NETWORK_ROUNDS):
                for side, net in sides.items():
                    x = images if side == "eager" else images.to(memory_format=torch.channels_last)
                    began = time.thread_time()
                    net(x)
                    if number:  # the first pass prepares the kernels
                        ms[side].append(1e3 * (time.thread_time() - began) / batch)
            found |= {f"{side}_{batch}_ms": round(statistics.median(times), 2) for side, times in ms.items()}
    return found | seen


def single(folder: Path, jpegs: list[bytes], *, image_size: int, number_format: str, **_key: Any) -> Values:
    """Measure the time of one image: over gRPC, and of the eager network in this process in float32."""
    torch.set_num_threads(available_cores())
    network = backbones.build("resnet18", image_size=image_size, stem="imagenet").eval().requires_grad_(False)
    network.load_state_dict(load_file(weights(folder, image_size, number_format)))
    normalize = NormalizeSettings()
    preprocess = Preprocess(image_size, normalize.mean, normalize.std, torch.device("cpu"), torch.float32)

    @torch.inference_mode()
    def eager(jpeg: bytes) -> np.ndarray[Any, Any]:
        pixels = decoder.resize(decoder.decode(jpeg), image_size)
        row: np.ndarray[Any, Any] = network(preprocess(pixels[None]).contiguous())[0].numpy()
        return row

    async def measure(address: str, model: str) -> Values:
        async with callers.stubs(address, model) as embed:
            for jpeg in jpegs[:WARM_UP]:
                eager(jpeg), await embed(jpeg)
            cosine = lowest_cosine([await embed(jpeg) for jpeg in jpegs[:16]], np.stack([eager(j) for j in jpegs[:16]]))
            ms: dict[str, list[float]] = {"eager": [], "served": []}
            cpu_s = {"eager": 0.0, "served": 0.0}
            with others() as seen:
                for start in range(0, CALLS, BLOCK):
                    for side in ms:
                        before = tree_cpu_s(os.getpid())
                        for at in range(start, start + BLOCK):
                            began = time.perf_counter()
                            eager(jpegs[at]) if side == "eager" else await embed(jpegs[at])
                            ms[side].append(1e3 * (time.perf_counter() - began))
                        cpu_s[side] += tree_cpu_s(os.getpid()) - before
        limit = 0.7 * statistics.median(ms["eager"]) + 2
        figures = {f"{side}_{name}": value for side in ms for name, value in _times(ms[side], cpu_s[side]).items()}
        return figures | {"of_limit": statistics.median(ms["served"]) / limit, "lowest_cosine": cosine} | seen

    with manyview.local(server_data(folder)) as client:
        return asyncio.run(measure(client.target, _model(image_size, number_format)))


def busy(folder: Path, jpegs: list[bytes], *, image_size: int, number_format: str, **_key: Any) -> Values:
    """Measure images per second: of the same engine in this process with a thread for each core, over gRPC in batches,
    and over gRPC with one image for each request."""
    jpegs = (jpegs * 2)[: BUSY_IMAGES[image_size]]
    engine = _engine(folder, image_size, number_format)
    rates: dict[str, list[float]] = {"engine": [], "batches": [], "images": []}
    levels = []
    with manyview.local(server_data(folder)) as client, others() as seen:
        model = _model(image_size, number_format)
        expected = engine(jpegs[:64])
        found = client.embed(jpegs[:64], model, progress=False).array
        for _ in range(ROUNDS):
            rates["engine"].append(_rate(lambda: engine(jpegs), len(jpegs)))
            rates["batches"].append(_rate(lambda: client.embed(jpegs, model, progress=False), len(jpegs)))
            levels.append(asyncio.run(_called(client.target, model, jpegs)))
            rates["images"].append(levels[-1]["images_per_second"])
    medians = {name: statistics.median(rounds) for name, rounds in rates.items()}
    return {
        **{f"{name}_per_second": rounds for name, rounds in rates.items()},
        "batches_ratio": medians["batches"] / medians["engine"],
        "images_ratio": medians["images"] / medians["engine"],
        "lowest_cosine": lowest_cosine(list(found), expected),
        "levels": levels,
        **seen,
    }


def beside(folder: Path, jpegs: list[bytes], *, image_size: int, number_format: str, **_key: Any) -> Values:
    """Measure steps of a job and images of callers per second: each alone, and both at once."""
    config = {
        "backbone": "resnet18", "image_size": image_size, "batch_size": 32, "precision": number_format,
        "log_every_steps": 1, "checkpoint_every_epochs": 1000, "evaluation": {"knn_every_epochs": 0},
    }  # fmt: skip
    rates: dict[str, list[float]] = {"embedding": [], "training": [], "embedding_beside": [], "training_beside": []}
    model = _model(image_size, number_format)
    with manyview.local(server_data(folder)) as client, others() as seen:
        target = client.target
        dataset = client.upload(jpegs[:512], dataset=f"beside-{time.time_ns()}", progress=False)

        def embed() -> float:
            return float(asyncio.run(_called(target, model, jpegs, WINDOW_S))["images_per_second"])

        rates["embedding"].append(embed())
        job = client.train(dataset, "simclr", epochs=100_000, config=config, job_id=f"beside-{time.time_ns()}")
        while _steps(job) < 3:
            time.sleep(0.5)
        with ThreadPoolExecutor(1) as pool:
            for _ in range(2):
                rates["training"].append(_steps_per_second(job, lambda: time.sleep(WINDOW_S)))
                embedding = pool.submit(embed)
                rates["training_beside"].append(_steps_per_second(job, embedding.result))
                rates["embedding_beside"].append(embedding.result())
        job.cancel()
        while not job.refresh().is_terminal:
            time.sleep(0.5)
        rates["embedding"].append(embed())
    medians = {name: statistics.median(rounds) for name, rounds in rates.items()}
    return {
        **{f"{name}_per_second": rounds for name, rounds in rates.items()},
        "training_share": medians["training_beside"] / medians["training"],
        "embedding_share": medians["embedding_beside"] / medians["embedding"],
        **seen,
    }


PARTS: dict[str, Callable[..., Values]] = {"network": network, "single": single, "busy": busy, "beside": beside}


@contextmanager
def others() -> Iterator[Values]:
    """Yield values that get the cores that other programs used in the block."""
    values: Values = {}
    began, machine, own = time.monotonic(), machine_cpu_s(), tree_cpu_s(os.getpid())
    yield values
    used = machine_cpu_s() - machine - tree_cpu_s(os.getpid()) + own
    values["others"] = round(max(0.0, used) / (time.monotonic() - began), 2)


async def _called(target: str, model: str, jpegs: list[bytes], measured_s: float = 8.0) -> Values:
    level = Level(callers=BUSY_CALLERS, warm_up_s=3.0, measured_s=measured_s)
    async with callers.stubs(target, model) as embed:
        return await call_in_tasks(embed, jpegs, level, os.getpid())


def _engine(folder: Path, image_size: int, number_format: str) -> Callable[[list[bytes]], np.ndarray[Any, Any]]:
    """Return a function that embeds JPEGs as the embedder's threads do, in their batches."""
    torch.set_num_threads(1)
    directory = _checkpoint(folder, image_size, number_format)
    key = ModelKey(name="", checkpoint_dir=str(directory), backbone="", weights_file="", output="backbone")
    model: EmbeddingModel = load(key, torch.device("cpu"))

    def embed_batch(batch: list[bytes]) -> np.ndarray[Any, Any]:
        pixels = [decoder.resize(decoder.decode(jpeg), image_size) for jpeg in batch]
        images = torch.stack([one.permute(1, 2, 0) for one in pixels]).permute(0, 3, 1, 2)
        return model.embed(images).numpy()

    pool = ThreadPoolExecutor(available_cores(), initializer=lambda: torch.set_num_threads(1))

    def embed(jpegs: list[bytes]) -> np.ndarray[Any, Any]:
        size = ENGINE_BATCH[image_size]
        return np.concatenate(list(pool.map(embed_batch, [jpegs[at : at + size] for at in range(0, len(jpegs), size)])))

    return embed


def _checkpoint(folder: Path, image_size: int, number_format: str) -> Path:
    """Return the directory of a checkpoint of a model."""
    wanted = job_name(image_size, number_format)
    for path in server_data(folder).glob(f"jobs/*/checkpoints/*/{checkpoints.STATE_JSON}"):
        if checkpoints.read_state(path.parent)["model"]["train_job"] == wanted:
            return path.parent
    raise FileNotFoundError(f"no checkpoint of {image_size} px in {number_format} in {folder}")


def _model(image_size: int, number_format: str) -> str:
    return f"trainJobs/{job_name(image_size, number_format)}"


def _times(ms: list[float], cpu_s: float) -> dict[str, float]:
    p50, p99 = np.percentile(ms, [50, 99])
    return {"p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1), "cpu_ms": round(1e3 * cpu_s / len(ms), 1)}


def _rate(work: Callable[[], object], num_images: int) -> float:
    began = time.perf_counter()
    work()
    return num_images / (time.perf_counter() - began)


def _steps(job: manyview.Job) -> int:
    return job.refresh().progress.step


def _steps_per_second(job: manyview.Job, work: Callable[[], object]) -> float:
    began, before = time.perf_counter(), _steps(job)
    work()
    return (_steps(job) - before) / (time.perf_counter() - began)


def report() -> str:
    """Return all cells as tables, one for each part."""
    columns = {
        "single": ("eager_p50_ms", "served_p50_ms", "served_p99_ms", "of_limit", "eager_cpu_ms", "served_cpu_ms"),
        "busy": ("engine_per_second", "batches_per_second", "batches_ratio", "images_per_second", "images_ratio"),
        "beside": ("training_share", "embedding_share", "training_per_second", "embedding_per_second"),
    }
    tables = [network_report()]
    for part, names in columns.items():
        rows = [["part", "px", "format", *names, "others"]]
        for cell in RESULTS.cells():
            if cell["key"]["part"] == part:
                shown = [_shown(cell["values"][name]) for name in (*names, "others")]
                rows.append([part, str(cell["key"]["image_size"]), cell["key"]["number_format"], *shown])
        if len(rows) > 1:
            tables.append(table(rows))
    return "\n\n".join(tables)


def network_report() -> str:
    """Return the CPU milliseconds of an image in the network."""
    rows = [["px", "format", "images in a pass", "eager ms", "folded ms", "fused ms", "fused / eager", "others"]]
    for cell in RESULTS.cells():
        key, values = cell["key"], cell["values"]
        if key["part"] == "network":
            for batch in BATCHES[key["image_size"]]:
                ms = [values[f"{side}_{batch}_ms"] for side in ("eager", "folded", "fused")]
                shown = [*map(_shown, ms), f"{ms[2] / ms[0]:.2f}", _shown(values["others"])]
                rows.append([str(key["image_size"]), key["number_format"], str(batch), *shown])
    return table(rows)


def _shown(value: float | list[float]) -> str:
    number = statistics.median(value) if isinstance(value, list) else value
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


if __name__ == "__main__":
    main()
