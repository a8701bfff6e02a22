"""Row G16: images per second of the pool that decodes JPEGs, by their size and by the number of threads."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.comparisons import pictures


def run(bench: Bench) -> None:
    """Decode and resize to 224 pixels, as training and embedding do. nvJPEG is not used (docs/performance.md)."""
    import torch

    from manyview_server.worker.images import decoder

    def read(data: bytes, target: int) -> torch.Tensor:
        return decoder.resize(decoder.decode(data), target)

    torch.set_num_threads(1)
    cores = os.cpu_count() or 1
    for side, target in ((256, 256), (500, 224)):
        images = pictures.jpegs(bench.size(256, 4), side, side)
        length = sum(map(len, images)) / len(images) / 1024
        for threads in sorted({1, max(1, cores // 2), cores}):
            with ThreadPoolExecutor(threads) as pool:
                done, began = 0, time.perf_counter()
                while done == 0 or time.perf_counter() - began < bench.size(3, 0):
                    list(pool.map(partial(read, target=target), images))
                    done += len(images)
                rate = done / (time.perf_counter() - began)
            conditions = {"px": side, "to": target, "KiB": round(length), "threads": threads, "peer": "none"}
            bench.figure("G16", "decode and resize", rate, "images/s", **conditions)
