"""One training with a budget of CPU time, and the kNN of its features. It runs in this process, on the CPU."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.recipes.images import StoredImages

from manyview_server.learn import methods
from manyview_server.messages.message import Message
from manyview_server.messages.training import StartTraining
from manyview_server.worker.evaluation.knn import KnnEvaluation, Split
from manyview_server.worker.images.decode_size import Snapshot
from manyview_server.worker.training.feed import BatchStream
from manyview_server.worker.training.preparation import ENDLESS, prepare
from manyview_server.worker.training.prepared_job import PreparedJob
from manyview_server.worker.training.progress import TrainerProgress
from manyview_server.worker.training.training_step import take_step

NUM_THREADS = 1
UNTIMED_STEPS = 2
"""The first steps are slower. Their time counts, but says nothing about later steps."""


class Unheard:
    """A channel whose messages nobody reads."""

    def send(self, message: Message) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A training that has ended."""

    steps: int
    epochs: float
    cpu_s: float
    loss: float | None
    """The loss of the last step. None if it was not finite, or without a step."""


def measure(images: StoredImages, method: str, config: dict[str, Any], cpu_s: float, directory: Path) -> dict[str, Any]:
    """Train for `cpu_s` seconds of this process's CPU time, and return the accuracies and how far the training came.

    The time counts everything that a trainer does before its last step: build the network, time its number formats,
    decode the images, and make the steps. It does not count evaluations. With `cpu_s` 0 the network stays untrained.
    """
    began_s = time.process_time()
    settings = methods.to_json(methods.resolve(method, {**config, "evaluation": {"knn_every_epochs": 0}}))
    job = prepare(_start(images, settings, directory), Unheard(), TrainerProgress(), lambda: False)
    trained = train(job, began_s + cpu_s) if cpu_s else Trained(steps=0, epochs=0.0, cpu_s=0.0, loss=None)
    if cpu_s:
        trained = replace(trained, cpu_s=time.process_time() - began_s)
    with closing(job.decoded):
        measured = accuracies(job, images.held_out)
    return {
        **measured,
        "steps": trained.steps,
        "epochs": round(trained.epochs, 2),
        "cpu_s": round(trained.cpu_s, 1),
        "loss": trained.loss,
        "batch_size": job.batch_size,
        "precision": job.numerics.precision,
        "threads": NUM_THREADS,
        "config": settings,
    }


def train(job: PreparedJob, end_s: float) -> Trained:
    """Make steps until the process has used `end_s` of CPU time, and let the schedules of the job end there.

    The number of all steps is estimated again at each step, from the mean time of the steps so far.
    """
    loss = torch.tensor(torch.nan)
    first_s = 0.0
    with closing(BatchStream(ENDLESS, one_epoch_at_a_time=False)) as batches:
        for step in count():
            now_s = time.process_time()
            if step <= UNTIMED_STEPS:
                first_s = now_s
            else:
                left = int((end_s - now_s) / ((now_s - first_s) / (step - UNTIMED_STEPS)))
                job = replace(job, num_steps=step + left)
            if step >= job.num_steps:
                break
            loss = take_step(job, batches.take(job.feed, step), step).loss
    last = float(loss)
    return Trained(steps=step, epochs=step / job.steps_per_epoch, cpu_s=0.0, loss=last if math.isfinite(last) else None)


def accuracies(job: PreparedJob, held_out: Snapshot) -> dict[str, float]:
    """Return kNN of the features and of raw pixels, with the k and the temperatures that jobs have by default.

    `knn_top1` classifies the held-out images by the training images. The held-out images are few, so `half_knn_top1`
    also classifies every second training image, and the others are the bank.
    """
    num_trained = len(job.decoded.index)
    index = job.decoded.index.extended(held_out)
    job.decoded.grow(index)
    train_rows, held_out_rows = torch.arange(num_trained), torch.arange(num_trained, len(index))
    found: dict[str, float] = {}
    for prefix, bank, queries in (
        ("", train_rows, held_out_rows),
        ("half_", train_rows[::2], torch.cat([train_rows[1::2], held_out_rows])),
    ):
        parts = Split(train=train_rows, bank=bank, held_out=held_out_rows, queries=queries)
        evaluation = KnnEvaluation(job.decoded, index, parts, job.settings, job.numerics, lambda: False)
        for name, values in (("", evaluation.of_method(job.method)), ("raw_", evaluation.of_raw_pixels())):
            assert values is not None
            found |= {f"{name}{prefix}{key}": value for key, value in values.items() if "top1" in key}
    assert job.decoded.findings.num_unreadable == 0
    return found


def _start(images: StoredImages, settings: dict[str, Any], directory: Path) -> StartTraining:
    return StartTraining(
        train_job="recipe",
        attempt=1,
        settings=settings,
        dataset_dir=str(images.directory),
        checkpoint_dir=str(directory / "checkpoints"),
        resume_from="",
        device="cpu",
        num_threads=NUM_THREADS,
        cache_bytes=1 << 32,
        blobs=(np.ascontiguousarray(images.train).tobytes(),),
    )
