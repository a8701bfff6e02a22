"""The states of a train job.

QUEUED -> STARTING -> RUNNING -> SUCCEEDED or FAILED, and STARTING or RUNNING -> RECOVERING -> STARTING. A job that
holds a device (STARTING, RUNNING or RECOVERING) may go -> PAUSING -> PAUSED -> QUEUED, or -> CANCELLING -> CANCELLED.
A QUEUED or PAUSED job becomes PAUSED or CANCELLED at once. Terminal states are final.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

JobState = Literal[
    "QUEUED",
    "STARTING",
    "RUNNING",
    "RECOVERING",
    "PAUSING",
    "PAUSED",
    "CANCELLING",
    "CANCELLED",
    "SUCCEEDED",
    "FAILED",
]
# The wishes of a user for a job.
Desired = Literal["run", "pause", "cancel"]

TERMINAL_STATES: frozenset[JobState] = frozenset({"CANCELLED", "SUCCEEDED", "FAILED"})

# The states that may follow each state. A job that is being paused or cancelled may still end by itself first.
NEXT_STATES: Mapping[JobState, frozenset[JobState]] = {
    "QUEUED": frozenset({"STARTING", "PAUSED", "CANCELLED", "FAILED"}),
    "STARTING": frozenset({"RUNNING", "RECOVERING", "PAUSING", "CANCELLING", "FAILED"}),
    "RUNNING": frozenset({"RECOVERING", "PAUSING", "CANCELLING", "SUCCEEDED", "FAILED"}),
    "RECOVERING": frozenset({"STARTING", "PAUSING", "CANCELLING", "FAILED"}),
    "PAUSING": frozenset({"PAUSED", "CANCELLING", "SUCCEEDED", "FAILED"}),
    "PAUSED": frozenset({"QUEUED", "CANCELLED"}),
    "CANCELLING": frozenset({"CANCELLED", "SUCCEEDED", "FAILED"}),
    "CANCELLED": frozenset(),
    "SUCCEEDED": frozenset(),
    "FAILED": frozenset(),
}
