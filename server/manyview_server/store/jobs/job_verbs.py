"""The requests of users about a train job, and the state to which each leads at once. The supervisor does the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from manyview_server.errors import FailedPrecondition
from manyview_server.store.job_states import Desired, JobState
from manyview_server.store.records import Job

HOLDS_DEVICE: tuple[JobState, ...] = ("STARTING", "RUNNING", "RECOVERING")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """A request of a user. `next_states` maps each state in which it is allowed to the state that follows."""

    desired: Desired
    reason: str
    next_states: Mapping[JobState, JobState]

    def next_state(self, job: Job) -> JobState:
        """Return the state that follows. Raises FailedPrecondition STATE_CONFLICT if the request comes too late."""
        if job.state not in self.next_states:
            message = f"train job {job.train_job_id!r} is already {job.state}"
            raise FailedPrecondition("STATE_CONFLICT", message, metadata={"state": job.state})
        return self.next_states[job.state]


PAUSE = Verb(
    desired="pause",
    reason="PAUSE_REQUESTED",
    next_states={
        "QUEUED": "PAUSED",
        **dict.fromkeys(HOLDS_DEVICE, "PAUSING"),
        "PAUSING": "PAUSING",
        "PAUSED": "PAUSED",
    },
)
# A job that is still being paused is queued again after its trainer has stopped.
RESUME = Verb(
    desired="run",
    reason="RESUME_REQUESTED",
    next_states={"PAUSED": "QUEUED", "PAUSING": "PAUSING", **{state: state for state in ("QUEUED", *HOLDS_DEVICE)}},
)
CANCEL = Verb(
    desired="cancel",
    reason="CANCEL_REQUESTED",
    next_states={
        **dict.fromkeys(("QUEUED", "PAUSED", "CANCELLED"), "CANCELLED"),
        **dict.fromkeys((*HOLDS_DEVICE, "PAUSING", "CANCELLING"), "CANCELLING"),
    },
)
