"""Measure how soon a server that was killed serves again, with few and with many images stored.

A data directory is filled through the store's own API with PNG files of 8 x 8 pixels, all different. Then, in each
round, a client uploads into the same data set while a job trains. The server is killed in the middle, started again,
and asked for its health. Filling continues where it was interrupted, and a cell that was measured is not measured
again.

    python -m benchmarks.recovery measure --data DIR --images 1000000
    python -m benchmarks.recovery measure --data DIR --images 1000000 --cold    # empties the page cache; needs root
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.results import Results, table

import manyview
from manyview_server.store.records import CheckedImage
from manyview_server.store.store import Store

RESULTS = Results("recovery")
ROUNDS = 5
FEW = 64
LABELS = 1000
BATCH, WINDOW = 256, 16
SIDE = 8
JOB: dict[str, Any] = {
    "backbone": "resnet9",
    "backbone_width": 0.125,
    "image_size": 16,
    "batch_size": 16,
    "epochs": 100_000,
    "log_every_steps": 1,
    "checkpoint_every_epochs": 100,
    "evaluation": {"knn_every_epochs": 0},
}
EVENTS = 2_000
"""Number of events in the job's log before the first kill."""


def main() -> None:
    """Fill the directory and measure one cell, then print all cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("measure", "report"))
    parser.add_argument("--data", type=Path, help="a directory of its own, for 2 GB with each million of images")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--cold", action="store_true", help="empty the page cache before each start")
    arguments = parser.parse_args()
    if arguments.part == "measure":
        if arguments.data is None:
            parser.error("--data is needed to measure")
        key = {"images": arguments.images, "page_cache": "cold" if arguments.cold else "warm"}
        if RESULTS.find(**key) is None:
            asyncio.run(fill(arguments.data, {"few": FEW, "stock": arguments.images}))
            RESULTS.add(key, measure(arguments.data, cold=arguments.cold))
    print(report())


async def fill(data_dir: Path, datasets: dict[str, int]) -> None:
    """Fill data sets of these names, each with the given number of images."""
    store = Store.open(data_dir)
    there = {dataset.dataset_id for dataset in (await store.datasets.list(100))[0]}
    began = time.monotonic()
    for name, count in datasets.items():
        if name not in there:
            await store.datasets.create(name)
        session = await store.uploads.open(name, "fill")
        numbers = range(session.upload.committed_number + 1, -(-count // BATCH) + 1)
        for first in range(0, len(numbers), WINDOW):
            some = numbers[first : first + WINDOW]
            await asyncio.gather(*(session.append(n, batch(name, n, count)) for n in some))
            if some[-1] % 512 == 0:
                print(f"{name}: {some[-1] * BATCH:,} images, {time.monotonic() - began:.0f} s", file=sys.stderr)
    await store.close()


def batch(name: str, number: int, count: int) -> list[CheckedImage]:
    """Return the images of the batch with this number. The last batch may be shorter."""
    first = (number - 1) * BATCH
    images = []
    for index, data in enumerate(pictures(f"{name} {number}", min(BATCH, count - first)), start=first):
        images.append(
            CheckedImage(
                data=data,
                key=f"class-{index % LABELS:04d}/{index:08d}.png",
                label=f"class-{index % LABELS:04d}",
                sha256=hashlib.sha256(data).digest(),
                extension="png",
                width=SIDE,
                height=SIDE,
            )
        )
    return images


def pictures(seed: str, count: int) -> Iterator[bytes]:
    """Yield PNG files of noise, the same for the same seed."""
    draw = np.random.default_rng(list(seed.encode()))
    rows = draw.integers(0, 256, (count, SIDE, 1 + 3 * SIDE), dtype=np.uint8)
    rows[:, :, 0] = 0  # each row starts with its filter type: none
    start = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
    end = _chunk(b"IEND", b"")
    for image in rows:
        yield start + _chunk(b"IDAT", zlib.compress(image.tobytes(), 1)) + end


def _chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


def measure(data_dir: Path, *, cold: bool) -> dict[str, Any]:
    """Return the seconds from the start of the process to its line that it serves, and to the answer of a health
    check."""
    server = Server(data_dir)
    server.start()
    try:
        with manyview.Client(server.address) as client:
            return rounds(server, client, training(client), cold=cold)
    finally:
        server.kill()


def training(client: manyview.Client) -> manyview.Job:
    """Start a job that does not end by itself, and wait until its log has some events."""
    if "marathon" not in {job.id for job in client.jobs()}:
        client.train("few", "moco", config=JOB, job_id="marathon")
    job = client.job("marathon")
    while job.refresh().last_sequence < EVENTS:
        time.sleep(1)
    return job


def rounds(server: Server, client: manyview.Client, job: manyview.Job, *, cold: bool) -> dict[str, Any]:
    """Kill the server repeatedly in the middle of an upload and of training."""
    serving, healthy, cpu, read_mib = [], [], [], []
    for number in range(ROUNDS):
        uploading = Uploading(server.address, f"{time.time_ns()}")
        assert uploading.progressed.wait(60)
        time.sleep(random.Random(number).uniform(0.5, 2.5))
        server.kill()
        if cold:
            empty_page_cache()
        serving.append(server.start())
        assert client.health() == "SERVING"
        healthy.append(time.monotonic() - server.started)
        cpu.append(server.cpu_s())
        read_mib.append(server.bytes_read() / 2**20)
        uploading.finish(client)
    assert not job.refresh().is_terminal
    return {
        "serving_s": serving,
        "healthy_s": healthy,
        "cpu_s": cpu,
        "read_mib": read_mib,
        "events_of_the_job": job.info.last_sequence,
        "load_average": os.getloadavg()[0],
    }


class Server:
    """`manyview-server serve` as a child process, on a port that stays the same."""

    def __init__(self, data_dir: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self._data_dir = data_dir
        self.started = 0.0

    def start(self) -> float:
        """Start the process. Returns the seconds until it says that it serves."""
        command = [sys.executable, "-m", "manyview_server", "serve", "--listen", self.address]
        with self._data_dir.with_suffix(".log").open("ab") as log:
            self.started = time.monotonic()
            self._process = subprocess.Popen(
                [*command, "--data", str(self._data_dir)], stdout=subprocess.PIPE, stderr=log
            )
        assert self._process.stdout is not None
        assert json.loads(self._process.stdout.readline())["event"] == "serving"
        return time.monotonic() - self.started

    def cpu_s(self) -> float:
        """Return the CPU-seconds that the process has used so far: the cost of a start, whatever else the machine
        does."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def bytes_read(self) -> int:
        """Return the bytes that the process has read so far by its system calls."""
        fields = dict(line.split(": ") for line in Path(f"/proc/{self._process.pid}/io").read_text().splitlines())
        return int(fields["rchar"])

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()
        self._process.wait()


class Uploading:
    """A client that uploads new images into the existing data set, from its start until `finish`."""

    def __init__(self, address: str, upload_id: str) -> None:
        self.progressed = threading.Event()
        self._upload_id = upload_id
        self._stop = threading.Event()
        self._num_sent = 0
        self._thread = threading.Thread(target=self._run, args=(address,))
        self._thread.start()

    def _run(self, address: str) -> None:
        with manyview.Client(address) as client:
            self._before = client.dataset("stock").num_images
            client.upload(self._images(), "stock", upload_id=self._upload_id, progress=lambda *_: self.progressed.set())

    def _images(self) -> Iterator[tuple[bytes, str]]:
        while not self._stop.is_set():
            for data in pictures(f"{self._upload_id} {self._num_sent}", BATCH):
                yield data, f"class-{self._num_sent % LABELS:04d}"
                self._num_sent += 1

    def finish(self, client: manyview.Client) -> None:
        """Stop sending, wait for all acknowledgements, and check that every image is counted."""
        self._stop.set()
        self._thread.join()
        assert client.dataset("stock").num_images == self._before + self._num_sent


def empty_page_cache() -> None:
    """Empty the page cache, so that a start reads everything from the disk, including its own program."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def report() -> str:
    """Return all cells as a table."""
    rows = [["images", "page cache", "serving s, median", "max", "healthy s, median", "max", "CPU s", "MiB read"]]
    for cell in RESULTS.cells():
        key, values = cell["key"], cell["values"]
        times = [f"{of(values[name]):.2f}" for name in ("serving_s", "healthy_s") for of in (statistics.median, max)]
        cost = [f"{statistics.median(values['cpu_s']):.2f}", f"{statistics.median(values['read_mib']):.0f}"]
        rows.append([f"{key['images']:,}", key["page_cache"], *times, *cost])
    return table(rows)


if __name__ == "__main__":
    main()
