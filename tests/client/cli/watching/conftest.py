"""A job as a board sees it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

import manyview
from manyview._cli.watching.board import Board

MEASURED = {"knn_top1_raw_pixels": 0.529, "knn_top1_untrained": 0.38}


def info(**changes: Any) -> manyview.TrainJobInfo:
    """A job in the middle of its training."""
    progress = manyview.Progress(
        step=140, num_steps=688, epoch=1, num_epochs=8, eta_s=429.0, activity=manyview.Activity(kind="TRAINING")
    )
    values: dict[str, Any] = {
        "name": "trainJobs/clothing-moco",
        "uid": "0123",
        "dataset": "datasets/clothing",
        "num_images": 3068,
        "config": {},
        "state": "RUNNING",
        "failure": None,
        "progress": progress,
        "create_time": datetime(2026, 11, 28, tzinfo=UTC),
        "start_time": None,
        "end_time": None,
        "attempt": 1,
        "last_sequence": 40,
        "latest_checkpoint": "",
        "queue_position": 0,
        "server_version": "0.1.0",
        "continued_from": "",
        "min_images": 0,
    }
    return manyview.TrainJobInfo(**{**values, **changes})


@dataclass
class FakeJob:
    """A job with an `info`, which is all that a board needs."""

    info: manyview.TrainJobInfo


class Events:
    """Makes the events of a job, which count up."""

    def __init__(self) -> None:
        self.sequence = 0

    def __call__(self, kind: Any, payload: Any, step: int = 0, epoch: int = 0) -> manyview.Event:
        self.sequence += 1
        return manyview.Event(
            sequence=self.sequence, kind=kind, time=None, attempt=1, step=step, epoch=epoch, payload=payload
        )


def scalars_at(step: int) -> dict[str, float]:
    """The scalars of a step, as a trainer logs them: the loss falls, and waves a little."""
    return {
        "loss": 3.0 + 4.0 * math.exp(-step / 60) + 0.2 * math.sin(step / 7),
        "gradient_norm": 1.5,
        "representation_std": 0.031,
        "representation_std_ratio": 0.55 + 0.3 * (1 - math.exp(-step / 50)),
        "projection_std": 0.08,
        "projection_std_ratio": 0.9,
        "effective_rank": 71.4,
        "uniformity": -2.1,
        "alignment": 0.42,
        "temperature": 0.1,
        "bank_fill": 1.0,
        "accuracy_fraction": 0.31,
        "learning_rate": 0.06,
        "images_per_second": 38.4,
        "step_ms": 3333.0,
        "data_wait_fraction": 0.004,
        "memory_bytes": 9.3e8,
        "skipped_steps": 0.0,
    }


def realistic(board: Board) -> Board:
    """Give a board the events of a job that has trained for more than an epoch."""
    event = Events()
    change = manyview.StateChange(from_state="QUEUED", to_state="STARTING", reason="", message="")
    board.add(event("state", change))
    board.add(event("log", manyview.Log(level="INFO", text="2,761 images to train on, 307 held out for kNN")))
    for name, value in MEASURED.items():
        board.add(event("scalars", manyview.Scalars(values={name: value})))
    board.add(event("state", replace(change, from_state="STARTING", to_state="RUNNING")))
    for step in (1, *range(10, 141, 10)):
        board.add(event("scalars", manyview.Scalars(values=scalars_at(step)), step=step, epoch=step // 86))
        if step == 90:
            board.add(event("scalars", manyview.Scalars(values={"knn_top1": 0.397}), step=86, epoch=1))
            saved = manyview.CheckpointSaved(name="trainJobs/clothing-moco/checkpoints/86", num_bytes=2_760_726)
            board.add(event("checkpoint", saved, step=86, epoch=1))
    text = "the gradient of step 37 is not finite: the step is skipped and changes nothing"
    board.add(event("alert", manyview.Alert(reason="NON_FINITE_STEP", message=text), step=37))
    return board


@pytest.fixture
def board() -> Board:
    """The board of a job in the middle of its training."""
    return realistic(Board(cast(manyview.Job, FakeJob(info()))))


@pytest.fixture
def board_of() -> Callable[..., Board]:
    """Makes the board of a job without events: board_of(state="QUEUED")."""
    return lambda **changes: Board(cast(manyview.Job, FakeJob(info(**changes))))
