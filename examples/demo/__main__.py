"""The demo: upload real images, watch a model learn what they have in common, and look at what it found.

Without arguments it works offline on real handwriting. With --images DIR it takes any folder; subfolders are class
labels. Training never sees the labels; the kNN accuracy is measured with them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from examples.demo import handwriting, picture

import manyview

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The method, its configuration, and a title that names method and images."""

    title: str
    method: str
    config: dict[str, Any]


def main() -> None:
    """Parse the arguments and run the demo in a temporary folder."""
    arguments = parse_arguments()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="manyview-demo-") as scratch:
        folder, plan = prepare(arguments, Path(scratch))
        with local_server() as client:
            run = train(client, folder, plan, arguments.seed)
        path = arguments.output / "demo.png"
        with step("Drawing the picture"):
            picture.draw(run, path)
    report(run, path, time.monotonic() - began)


def parse_arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--images", type=Path, metavar="DIR", help="a folder of JPEG, PNG or WebP files")
    parser.add_argument("--method", default="moco", choices=("simclr", "moco"), help="default: %(default)s")
    parser.add_argument("--epochs", type=int, help="default: fitted to the number of images")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args()
    if arguments.images is not None and not arguments.images.is_dir():
        parser.error(f"--images: {arguments.images} is not a folder")
    return arguments


def prepare(arguments: argparse.Namespace, scratch: Path) -> tuple[Path, Plan]:
    """Return the folder of images and the plan for it."""
    if arguments.images is None:
        folder = scratch / "handwriting"
        with step("Writing scikit-learn's scans of handwritten digits as JPEG files"):
            count = handwriting.write_images(folder)
        config = handwriting_config()
        if arguments.method == "moco":
            config |= {
                "memory_bank_size": 256,
                "ema_momentum": 0.97,
            }  # a short training needs a teacher that follows faster
        title = f"{count:,} scans of handwriting"
    else:
        folder = arguments.images
        count = len(image_files(folder))
        if count == 0:
            raise SystemExit(f"{folder}: no {', '.join(sorted(SUFFIXES))} files in it")
        config = folder_config(count)
        if arguments.method == "moco":
            config["memory_bank_size"] = max(32, min(1024, count // 10))
        title = f"{count:,} images of {folder.name}"
    config |= {"seed": arguments.seed}
    if arguments.epochs is not None:
        config["epochs"] = arguments.epochs
    names = {"simclr": "SimCLR", "moco": "MoCo v2"}
    return folder, Plan(title=f"{names[arguments.method]} on {title}", method=arguments.method, config=config)


def handwriting_config() -> dict[str, Any]:
    """Return a configuration for digits. The views vary place and scale; a mirrored digit would be another one."""
    return {
        "backbone": "resnet9",
        "backbone_width": 0.25,
        "image_size": 64,
        "batch_size": 32,
        "epochs": 60,
        "views": {
            "crop": {"scale_min": 0.4},
            "horizontal_flip": {"probability": 0.0},
            "color_jitter": {"probability": 0.0},
            "grayscale": {"probability": 0.0},
        },
        "optimizer": {"learning_rate": 0.1},
        "evaluation": {"knn_every_epochs": 4, "knn_k": 20, "knn_holdout_fraction": 0.2},
    }


def folder_config(count: int) -> dict[str, Any]:
    """Return a configuration for photographs: the method's own views, at a size that two cores train in a few
    minutes."""
    return {
        "backbone": "resnet9",
        "backbone_width": 0.5,
        "image_size": 64,
        "epochs": max(4, min(100, 40_000 // count)),
        "evaluation": {"knn_k": 20},
    }


def train(client: manyview.Client, folder: Path, plan: Plan, seed: int) -> picture.Run:
    """Upload the images, train with live metrics, and embed the images."""
    paths = image_files(folder)
    with step(f"Uploading {len(paths):,} images"):
        dataset = client.upload(folder, dataset="demo")
    sent = dataset.upload
    assert sent is not None
    print(f"   stored {dataset.num_images:,}, duplicates {sent.num_duplicates}, refused {sent.num_rejected}")
    job = client.train(dataset, method=plan.method, config=plan.config)
    with step(f"Training {plan.title}: {plan.config['epochs']} epochs"):
        print()
        rows = list(watch(job))
        job.wait(timeout_s=60)
    with step(f"Embedding {len(paths):,} images with {job.refresh().latest_checkpoint}"):
        embeddings = client.embed(paths, model=job)
    labels = [path.parent.name if path.parent != folder else "" for path in paths]
    return picture.Run(
        title=plan.title, rows=rows, feature_dim=embeddings.array.shape[1], paths=paths, labels=labels,
        embeddings=np.asarray(embeddings.array), seed=seed,
    )  # fmt: skip


def watch(job: manyview.Job) -> Iterator[dict[str, float]]:
    """Print the job's events as they arrive, with some scalars of each epoch, and yield all scalars."""
    header = f"   {'step':>6} {'epoch':>5} {'loss':>7} {'std':>7} {'std·√d':>7} {'images/s':>9} {'kNN top-1':>10}  left"
    printed, epoch = 0, -1
    for event in job.metrics():
        if event.kind == "log":
            print(f"   {event['text']}")
        elif event.kind == "alert":
            print(f"   ! {event['message']}")
        elif event.kind == "scalars":
            yield {"step": event.step, **event.values}
            is_new_epoch = "loss" in event.values and event.epoch > epoch
            if is_new_epoch or "knn_top1" in event.values:
                if printed % 20 == 0:
                    print(header)
                printed, epoch = printed + 1, event.epoch if is_new_epoch else epoch
                print(line(event, job), flush=True)


def line(event: manyview.Event, job: manyview.Job) -> str:
    """Return a row of the live table."""

    def cell(name: str, width: int, form: str, scale: float = 1) -> str:
        value = event.get(name)
        return f"{'' if value is None else format(scale * value, form):>{width}}"

    left = job.refresh().progress.eta_s if "loss" in event else 0
    return " ".join(
        (
            f"   {event.step:>6} {event.epoch:>5}",
            cell("loss", 7, ".3f"),
            cell("representation_std", 7, ".4f"),
            cell("representation_std_ratio", 7, ".2f"),
            cell("images_per_second", 9, ",.0f"),
            cell("knn_top1", 10, ".1f", 100),
            f" {left:.0f} s" if left else "",
        )
    )


def report(run: picture.Run, path: Path, seconds: float) -> None:
    """Print the accuracies that show whether the model learned, and the path of the picture."""
    found = {name: value for row in run.rows for name, value in row.items()}
    if "knn_top1" in found:
        print("\nkNN top-1 on held-out images, by")
        for name, text in (
            ("knn_top1_raw_pixels", "raw pixels"),
            ("knn_top1_untrained", "the untrained backbone"),
            ("knn_top1", "the learned embeddings"),
        ):
            print(f"   {text:<24} {100 * found[name]:5.1f} %")
    print(f"\nPicture: {path} ({seconds:.0f} s in total)")


def image_files(folder: Path) -> list[Path]:
    """Return the images below `folder`, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


@contextmanager
def local_server() -> Iterator[manyview.Client]:
    """Start a private server as a process of its own, and yield a client of it."""
    began = time.monotonic()
    print("Starting a server …", end=" ", flush=True)
    # Only one job runs. Threads that spin while they wait train it 1.5 times as fast as threads that sleep.
    environment = os.environ | {"OMP_WAIT_POLICY": "active"}
    with manyview.local(env=environment) as client:
        info = client.server_info()
        print(f"{time.monotonic() - began:.1f} s. manyview {info.version} on {info.devices[0].description}")
        yield client


@contextmanager
def step(text: str) -> Iterator[None]:
    """Print the name of a step, and its duration at the end."""
    began = time.monotonic()
    print(f"{text} …", end=" ", flush=True)
    yield
    print(f"{time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()
