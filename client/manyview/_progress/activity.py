"""The work of a train job at the moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from manyview._progress.words import number_of

ActivityKind = Literal[
    "UNSPECIFIED",  # an older server does not say
    "WAITING_FOR_DEVICE",
    "WAITING_FOR_IMAGES",
    "STARTING_WORKER",
    "DECODING",
    "BUILDING_MODEL",
    "MEASURING_BASELINE",
    "TRAINING",
    "EVALUATING",
    "STOPPING",
]


@dataclass(frozen=True, kw_only=True)
class Activity:
    """The work of a job at the moment. `done` of `total` images are done; both are 0 for work that counts none."""

    kind: ActivityKind
    done: int = 0
    total: int = 0

    def __str__(self) -> str:
        """Return the work in words, such as "decoding 1,200 of 3,068 images"."""
        words = _ACTIVITIES[self.kind]
        return f"{words} {self.done:,} of {number_of(self.total, 'image')}" if self.total else words


_ACTIVITIES: Mapping[ActivityKind, str] = {
    "UNSPECIFIED": "",
    "WAITING_FOR_DEVICE": "waiting for the device",
    "WAITING_FOR_IMAGES": "following:",
    "STARTING_WORKER": "starting a worker",
    "DECODING": "decoding",
    "BUILDING_MODEL": "building the model",
    "MEASURING_BASELINE": "measuring the baseline:",
    "TRAINING": "training",
    "EVALUATING": "measuring kNN:",
    "STOPPING": "stopping after this step",
}
