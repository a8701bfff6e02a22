"""Measure the wait for the first answer of each kind of worker, with and without the fork server.

In each round, servers with `fork_workers` off and on take turns. Each serves for ten seconds, then a client trains,
embeds and previews once: from `train` to the first step, from `embed` to its answer, from `preview` to its sheet.

    python -m benchmarks.starts measure --rounds 5
    python -m benchmarks.starts report
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.results import Results, table
from PIL import Image

import manyview

RESULTS = Results("starts")
SETTINGS = ("off", "on")
KINDS = ("train", "embed", "preview")
SERVES_S = 10.0
NUM_IMAGES, SIDE = 128, 40
CATALOGUE = "catalogue.json"
JOB: dict[str, Any] = {
    "backbone": "resnet9",
    "backbone_width": 0.125,
    "image_size": 16,
    "batch_size": 16,
    "log_every_steps": 1,
}
"""A step takes milliseconds, so that the wait for the first one is that for the trainer."""
MODEL = "backbones/resnet18"


def main() -> None:
    """Measure one cell, then print all cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("measure", "report"))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.part == "measure":
        RESULTS.add({"rounds": arguments.rounds}, measure(arguments.rounds))
    print(report())


def measure(rounds: int) -> dict[str, Any]:
    """Return seconds and memory by setting, a list with a value for each round."""
    found: dict[str, dict[str, list[float]]] = {setting: {} for setting in SETTINGS}
    with tempfile.TemporaryDirectory() as folder:
        catalogue = Path(folder) / CATALOGUE
        for number in range(rounds):
            for setting in SETTINGS:
                server = Server(Path(folder) / f"{setting}-{number}", setting, catalogue)
                try:
                    values = one_life(server)
                finally:
                    server.stop()
                print(number, setting, {name: round(value, 2) for name, value in values.items()}, file=sys.stderr)
                for name, value in values.items():
                    found[setting].setdefault(name, []).append(value)
    return {**found, "load_average": os.getloadavg()[0]}


class Server:
    """`manyview-server serve` as a child process, with a catalogue that the first one has found."""

    def __init__(self, data_dir: Path, setting: str, catalogue: Path) -> None:
        data_dir.mkdir(mode=0o700)
        if catalogue.exists():
            shutil.copyfile(catalogue, data_dir / CATALOGUE)
        command = [sys.executable, "-m", "manyview_server", "serve", "--listen", "127.0.0.1:0", "--data", str(data_dir)]
        with data_dir.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--fork-workers", setting], stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL
            )
        assert self._process.stdout is not None
        self.address = json.loads(self._process.stdout.readline())["address"]
        self.served_at = time.monotonic()
        if not catalogue.exists():
            shutil.copyfile(data_dir / CATALOGUE, catalogue)

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._process.pid

    def memory_mib(self) -> float:
        """Return the proportional share of the memory of the server and all its workers."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return sum(map(_pss_mib, [self._process.pid, *map(int, children)]))

    def stop(self) -> None:
        """End it, and wait for its end."""
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def one_life(server: Server) -> dict[str, float]:
    """Use a server once for everything, and return what that took."""
    images = pictures()
    with manyview.Client(server.address) as client:
        client.upload(images, "few")
        time.sleep(max(0.0, server.served_at + SERVES_S - time.monotonic()))
        values = {"idle_mib": server.memory_mib()}
        began = time.monotonic()
        job = client.train("few", "moco", config=JOB, epochs=1000)
        next(event for event in job.metrics(kinds=["scalars"]) if "loss" in event)
        values["train_s"] = time.monotonic() - began
        job.cancel()
        with suppress(manyview.TrainJobCancelled):
            job.wait()
        values["embed_s"] = timed(lambda: client.embed(images[:4], MODEL))
        values["preview_s"] = timed(lambda: client.preview(images[:4], config={"image_size": 32}))
        values["busy_mib"] = server.memory_mib()
    return values


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def pictures() -> list[bytes]:
    """Return JPEG files of noise, the same in each round."""
    draw, files = np.random.default_rng(1), []
    for _ in range(NUM_IMAGES):
        file = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(file, "JPEG")
        files.append(file.getvalue())
    return files


def _pss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def report() -> str:
    """Return the medians of all cells as a table."""
    heads = [f"first {kind} s, {setting}" for kind in KINDS for setting in SETTINGS]
    rows = [["rounds", *heads, "MiB idle, off", "on", "MiB in use, off", "on", "load"]]
    for cell in RESULTS.cells():
        values = cell["values"]
        seconds = [f"{_median(values, setting, f'{kind}_s'):.2f}" for kind in KINDS for setting in SETTINGS]
        memory = [f"{_median(values, s, name):.0f}" for name in ("idle_mib", "busy_mib") for s in SETTINGS]
        rows.append([str(cell["key"]["rounds"]), *seconds, *memory, f"{values['load_average']:.1f}"])
    return table(rows)


def _median(values: dict[str, Any], setting: str, name: str) -> float:
    return statistics.median(values[setting][name])


if __name__ == "__main__":
    main()
