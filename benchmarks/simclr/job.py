"""Our side: a job of a server in processes of its own, from JPEG files that were uploaded over gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.simclr.plan import TEMPERATURE, Training
from benchmarks.simclr.window import Moment, between

import manyview


def config(training: Training, precision: str) -> dict[str, Any]:
    """Return the configuration of the job. It logs the end of each epoch, so that its steps can be counted, and saves
    one checkpoint, at its end, because its epochs are short."""
    return {
        "backbone": training.network,
        "image_size": training.image_size,
        "batch_size": training.batch_size,
        "precision": precision,
        "memory_format": "channels_last",
        "temperature": TEMPERATURE,
        "log_every_steps": training.steps_per_epoch,
        "checkpoint_every_epochs": 1 + training.epochs,
        "evaluation": {"knn_every_epochs": 0},
    }


def turn(training: Training, precision: str, paths: list[Path], environment: dict[str, str]) -> dict[str, float]:
    """Train, and return what an image took from the second epoch on. The last step of an epoch is reported at once.

    Workers are started as programs: in the first three minutes of a server, a process from which they are forked
    imports libraries for later workers, which is longer than a turn.
    """
    first, last = training.steps_per_epoch, training.steps_per_epoch * (1 + training.epochs)
    moments: dict[int, Moment] = {}
    with manyview.local(env=environment | {"MANYVIEW_FORK_WORKERS": "off"}) as client:
        dataset = client.upload(paths, dataset="photographs")
        job = client.train(dataset, "simclr", epochs=1 + training.epochs, config=config(training, precision))
        for event in job.metrics(kinds=["scalars"]):
            if event.step in (first, last) and "images_per_second" in event.values:
                moments[event.step] = Moment()
        job.wait()
    return between(moments[first], moments[last], training.num_images * training.epochs)
