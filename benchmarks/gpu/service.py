"""Figures through a real server: training from uploaded images, embedding in bulk, and the latency of one image."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.comparisons import pictures
from torch import Tensor

WIDTH, HEIGHT = 400, 533
CALLERS = 16
ROOT = Path(__file__).parent.parent.parent


def run(bench: Bench) -> None:
    """Start a server on this device, and measure rows G1, G14 and G15, and G5 again, over gRPC."""
    import manyview

    count = bench.size(2048, 24)
    began = time.perf_counter()
    paths = pictures.write(bench.scratch / "photographs", count, *(bench.size(n, n // 10) for n in (WIDTH, HEIGHT)))
    bench.figure("context", "drawing JPEGs", count / (time.perf_counter() - began), "images/s")
    environment = os.environ | {"MANYVIEW_SERVER_DEVICE": "cuda" if bench.cuda else "cpu"}
    with manyview.local(env=environment) as client:
        info = client.server_info()
        wanted = torch.cuda.get_device_name(bench.device) if bench.cuda else "cores"
        bench.check("the server has the device", wanted in info.devices[0].description, info.devices[0].description)
        began = time.perf_counter()
        dataset = client.upload(paths, dataset="photographs")
        bench.figure("context", "upload", count / (time.perf_counter() - began), "images/s", images=count)
        job = trained(bench, client, dataset, "resnet9" if bench.quick else "resnet18", "G5")
        if not bench.quick:
            job = trained(bench, client, dataset, "resnet50", "G1")
        embedded(bench, client, paths, job, "the job's model")
        latencies(bench, client, paths, job)
        if not bench.quick:
            embedded(bench, client, paths, "backbones/vit_base", "backbones/vit_base in float32")
            latency_of_a_bare_network(bench, paths)


def trained(bench: Bench, client: Any, dataset: Any, backbone: str, row: str) -> Any:
    """Train a job whose images come over gRPC, and record its rate from the third epoch on, when everything is warm."""
    config: dict[str, Any] = {
        "image_size": bench.size(224, 16),
        "decode_size": bench.size(256, 32),
        "batch_size": bench.size(256, 4),
        "precision": "bfloat16" if bench.cuda else "float32",
        "memory_format": "channels_last",
        "log_every_steps": bench.size(8, 1),
        "checkpoint_every_epochs": 100,
        "evaluation": {"knn_every_epochs": 0},
    }
    if bench.quick:
        config["backbone_width"] = 0.125
    began = time.perf_counter()
    job = client.train(dataset, "simclr", backbone=backbone, epochs=bench.size(8, 2), config=config)
    rows = [event for event in job.metrics(kinds=["scalars"]) if "images_per_second" in event.values]
    job.wait()
    losses = [event["loss"] for event in rows if "loss" in event.values]
    bench.check(
        f"{backbone} through the server has losses", bool(losses) and all(np.isfinite(losses)), f"{losses[:3]} …"
    )
    later = [event["images_per_second"] for event in rows if event.epoch >= bench.size(2, 1)]
    conditions = {"B": config["batch_size"], "px": config["image_size"], "readings": len(later), "peer": "none"}
    bench.figure(row, f"simclr {backbone}, a job of the server", statistics.median(later), "images/s", **conditions)
    total = time.perf_counter() - began
    bench.figure("context", f"{backbone}: from the request to the end of the job", total, "s")
    return job


def embedded(bench: Bench, client: Any, paths: list[Path], model: Any, name: str) -> None:
    """Row G14: images per second in bulk and from many callers at once. The rows must be equal for both."""
    whole = client.embed(paths[:64], model).array  # the model is loaded
    began = time.perf_counter()
    bulk = client.embed(paths, model)
    rate = len(paths) / (time.perf_counter() - began)
    conditions = {"image": f"{WIDTH} x {HEIGHT} JPEG", "peer": "none"}
    bench.figure("G14", f"{name}, one caller in bulk", rate, "images/s", **conditions)
    bench.check(f"{name}: every row is there", not bulk.errors and bool(np.isfinite(bulk.array).all()))
    cosines = (whole * bulk.array[:64]).sum(1) / np.linalg.norm(whole, axis=1) / np.linalg.norm(bulk.array[:64], axis=1)
    bench.check(f"{name}: rows do not depend on the batch", float(cosines.min()) > 0.999, f"{float(cosines.min()):.6f}")
    parts = [paths[caller::CALLERS] for caller in range(CALLERS)]
    began = time.perf_counter()
    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(lambda part: client.embed(part, model, batch_size=16), parts))
    rate = len(paths) / (time.perf_counter() - began)
    bench.figure("G14", f"{name}, {CALLERS} callers with batches of 16", rate, "images/s", **conditions)


def latencies(bench: Bench, client: Any, paths: list[Path], model: Any) -> None:
    """Row G15: the time of a call with one image, including gRPC and decoding."""
    data = [path.read_bytes() for path in paths[: bench.size(200, 6)]]
    times = []
    for image in data:
        began = time.perf_counter()
        client.embed([image], model)
        times.append((time.perf_counter() - began) * 1e3)
    times = sorted(times[len(times) // 10 :])
    for percent in (50, 99):
        at = times[min(len(times) - 1, len(times) * percent // 100)]
        bench.figure("G15", f"a call with one image, p{percent}", at, "ms", calls=len(times), peer="below")


def latency_of_a_bare_network(bench: Bench, paths: list[Path]) -> None:
    """The peer of row G15: torchvision's network in this process, with decoding and without."""
    from torchvision.models import resnet50

    from manyview_server.worker.images import decoder

    network = resnet50().eval().to(bench.device)
    data = [path.read_bytes() for path in paths[:100]]

    def forward(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            result: Tensor = network(pixels[None].to(bench.device).float() / 255)
            return result.cpu()

    images = [decoder.resize(decoder.decode(each), 224) for each in data]
    calls: list[tuple[str, Callable[[int], object]]] = [
        ("eager network in this process", lambda at: forward(images[at])),
        ("with decoding", lambda at: forward(decoder.resize(decoder.decode(data[at]), 224))),
    ]
    for name, call in calls:
        times = []
        for at in range(len(data)):
            began = time.perf_counter()
            call(at)
            times.append((time.perf_counter() - began) * 1e3)
        bench.figure("G15", f"{name}, p50", statistics.median(times[10:]), "ms", calls=len(times) - 10)


def demo(bench: Bench) -> None:
    """`make demo` on this machine's device: handwriting, a server, live metrics, embeddings and the picture."""
    output = bench.scratch / "demo"
    command = [sys.executable, "-m", "examples.demo", "--output", str(output), "--epochs", str(bench.size(20, 1))]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=max(1.0, bench.seconds_left - 1), check=False
    )
    bench.check(
        "make demo", done.returncode == 0 and (output / "demo.png").exists(), (done.stdout + done.stderr)[-600:]
    )
