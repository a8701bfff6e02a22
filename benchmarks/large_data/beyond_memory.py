"""Measure a training whose decoded images do not fit into memory, beside one whose images are all kept.

Each cell is a trainer in a fresh process, with decoded images limited to a third of `--memory`, as a server does: a few
images that are all kept, or many that are decoded again in each epoch. Cells of both kinds take turns, and one call
measures one cell. The many images are JPEGs of IMAGES with another comment in each file, in a shard that later calls
use again; `clean` deletes it.

    python -m benchmarks.large_data.beyond_memory measure --images 20000 IMAGES
    python -m benchmarks.large_data.beyond_memory report
    python -m benchmarks.large_data.beyond_memory clean
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.results import Results, markdown, table

RESULTS = Results("beyond_memory")
FOLDER = Path(tempfile.gettempdir()) / "manyview-beyond-memory"
HEADER = ["images", "size", "backbone", "room for", "first step", "of it waiting", "images/s", "waiting", "peak memory"]


def main() -> None:
    """Measure one cell, print all cells, or delete the images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("measure", "report", "clean", "cell"))
    parser.add_argument("source", nargs="?", help="a folder of JPEGs, or the JSON of a cell")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--few", type=int, default=128, help="the images of the cells that keep all of them")
    parser.add_argument("--memory", type=float, default=3.0, help="the memory limit of the server in GB")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_intermixed_args()
    if arguments.part == "cell":
        print(json.dumps(train(json.loads(arguments.source))))
        return
    if arguments.part == "clean":
        shutil.rmtree(FOLDER, ignore_errors=True)
        return
    if arguments.part == "measure":
        measure_next(arguments)
    print(report())


def measure_next(arguments: argparse.Namespace) -> None:
    """Measure the first cell that is missing."""
    names = ("memory", "image_size", "backbone", "batch_size", "steps", "threads")
    settings = {name: getattr(arguments, name) for name in names}
    for number in range(arguments.rounds):
        for num_images in (arguments.few, arguments.images):
            key = {"images": num_images, **settings, "round": number}
            if RESULTS.find(**key) is None:
                write_images(Path(arguments.source), num_images)
                command = [sys.executable, "-m", "benchmarks.large_data.beyond_memory", "cell", json.dumps(key)]
                found = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
                RESULTS.add(key, json.loads(found.splitlines()[-1]))
                return


def write_images(source: Path, num_images: int) -> None:
    """Write a shard of as many different JPEGs, unless an earlier call has. Labels are the folders of the files."""
    from manyview_server.image_header import read_header
    from manyview_server.store.images.shard_writers import ShardWriter
    from manyview_server.store.images.shards import SNAPSHOT_DTYPE, image_id_of

    folder = FOLDER / str(num_images)
    if (folder / "snapshot.npy").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files = [path.read_bytes() for path in sorted(source.rglob("*.jp*g"))]
    rows = np.zeros(num_images, SNAPSHOT_DTYPE)
    writer = ShardWriter(folder)
    for number, row in enumerate(rows):
        data = with_comment(files[number % len(files)], f"{number:08d}".encode())
        digest, header = hashlib.sha256(data).digest(), read_header(data)
        row["image_id"], row["label"], row["length"] = image_id_of(digest), -1, len(data)
        row["width"], row["height"] = header.width, header.height
        meta = {"sha256": digest.hex(), "key": "", "label": ""}
        row["shard"], row["offset"] = writer.append(image_id_of(digest), "jpg", data, meta)
    writer.sync()
    writer.close()
    np.save(folder / "snapshot.npy", rows)


def with_comment(jpeg: bytes, text: bytes) -> bytes:
    """Return the JPEG with a comment behind its first marker. Its pixels stay as they are."""
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


class Heard:
    """A channel that notes when its messages came."""

    def __init__(self) -> None:
        self.messages: list[tuple[float, Any]] = []

    def send(self, message: Any) -> None:
        """Note a message."""
        self.messages.append((time.monotonic(), message))

    def of(self, kind: type) -> list[tuple[float, Any]]:
        """Return the messages of a kind, each with its time."""
        return [(at, message) for at, message in self.messages if isinstance(message, kind)]


def train(key: dict[str, Any]) -> dict[str, Any]:
    """Train in this process, and return what was measured."""
    from manyview_server.learn import methods
    from manyview_server.messages.training import ScalarsLogged, StartTraining, TrainingStarted
    from manyview_server.supervise.cores import CACHE_FRACTION
    from manyview_server.worker.training.trainer import Trainer

    folder = FOLDER / str(key["images"])
    overrides = {name: key[name] for name in ("image_size", "backbone", "batch_size")}
    fixed = {"precision": "float32", "memory_format": "channels_last", "log_every_steps": 1, "epochs": 10_000}
    evaluation = {"knn_every_epochs": 0}
    settings = methods.resolve("simclr", {**overrides, **fixed, "max_steps": key["steps"], "evaluation": evaluation})
    cache_bytes = int(CACHE_FRACTION * key["memory"] * 1e9)
    heard = Heard()
    with tempfile.TemporaryDirectory() as checkpoints:
        start = StartTraining(
            train_job="beyond-memory",
            attempt=1,
            settings=methods.to_json(settings),
            dataset_dir=str(folder),
            checkpoint_dir=checkpoints,
            resume_from="",
            device="cpu",
            num_threads=key["threads"],
            cache_bytes=cache_bytes,
            blobs=(np.load(folder / "snapshot.npy").tobytes(),),
        )
        Trainer(heard, start).train()
    (built_s, _), *_ = heard.of(TrainingStarted)
    steps = [(at, message.values) for at, message in heard.of(ScalarsLogged) if "loss" in message.values]
    first_s, first = steps[0]
    # Steps of the first pass over few images still decode; steps of many images always do.
    later = [values for _, values in steps[min(len(steps) // 2, max(2, key["images"] // key["batch_size"])) :]]
    return {
        "room_for": cache_bytes // (3 * (2 * key["image_size"]) ** 2),
        "first_step_s": first_s - built_s,
        "first_wait_s": first["data_wait_fraction"] * first["step_ms"] / 1e3,
        "images_per_second": statistics.median(values["images_per_second"] for values in later),
        "data_wait_fraction": statistics.median(values["data_wait_fraction"] for values in later),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def medians() -> list[tuple[dict[str, Any], dict[str, float]]]:
    """Return each kind of cell, and the medians over its rounds."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for cell in RESULTS.cells():
        name = json.dumps({field: value for field, value in cell["key"].items() if field != "round"})
        groups.setdefault(name, []).append(cell["values"])
    return [
        (json.loads(name), {field: statistics.median(values[field] for values in cells) for field in cells[0]})
        for name, cells in groups.items()
    ]


def document() -> str:
    """Return the medians as a table of Markdown, which docs/operations.md shows."""
    kept, streamed = (found for _, found in medians())
    num_images = [f"{key['images']:,} images" for key, _ in medians()]
    ratio = streamed["images_per_second"] / kept["images_per_second"]
    both = (kept, streamed)
    return markdown(
        [
            ["", f"{num_images[0]}, all kept", num_images[1]],
            [
                "first step, from the moment when the model is built",
                *(f"{found['first_step_s']:.1f} s" for found in both),
            ],
            ["of it waiting for images", *(f"{found['first_wait_s']:.2f} s" for found in both)],
            ["images/s", f"{kept['images_per_second']:.2f}", f"{streamed['images_per_second']:.2f} ({ratio:.2f})"],
            [
                "share of the time in which the step waits for images",
                *(f"{100 * found['data_wait_fraction']:.1f} %" for found in both),
            ],
            ["peak memory of the trainer", *(f"{found['peak_bytes'] / 1e6:,.0f} MB" for found in both)],
        ]
    )


def report() -> str:
    """Return a table of all cells: medians over the rounds."""
    rows = [HEADER]
    for key, found in medians():
        rows.append(
            [
                f"{key['images']:,}",
                str(key["image_size"]),
                key["backbone"],
                f"{int(found['room_for']):,}",
                f"{found['first_step_s']:.2f} s",
                f"{found['first_wait_s']:.2f} s",
                f"{found['images_per_second']:.2f}",
                f"{100 * found['data_wait_fraction']:.1f} %",
                f"{found['peak_bytes'] / 1e6:,.0f} MB",
            ]
        )
    return table(rows)


if __name__ == "__main__":
    main()
