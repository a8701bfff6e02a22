"""What a user may ask of a train job, and where that leads it at once; what is left to do is the supervisor's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from manyview_server.errors import FailedPrecondition
from manyview_server.store.job_states import Desired, JobState
from manyview_server.store.records import Job

HOLDS_DEVICE: tuple[JobState, ...] = ("STARTING", "RUNNING", "RECOVERING")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """A wish. `leads`: from each state in which it may be uttered to the one that follows, perhaps the same."""

    desired: Desired
    reason: str
    leads: Mapping[JobState, JobState]

    def lead(self, job: Job) -> JobState:
        """The state that follows. Raises FailedPrecondition STATE_CONFLICT where it is too late."""
        if job.state not in self.leads:
            message = f"train job {job.train_job_id!r} is {job.state} already"
            raise FailedPrecondition("STATE_CONFLICT", message, metadata={"state": job.state})
        return self.leads[job.state]


PAUSE = Verb(
    desired="pause",
    reason="PAUSE_REQUESTED",
    leads={"QUEUED": "PAUSED", **dict.fromkeys(HOLDS_DEVICE, "PAUSING"), "PAUSING": "PAUSING", "PAUSED": "PAUSED"},
)
# A job that is still being paused goes on when its trainer has stopped.
RESUME = Verb(
    desired="run",
    reason="RESUME_REQUESTED",
    leads={"PAUSED": "QUEUED", "PAUSING": "PAUSING", **{state: state for state in ("QUEUED", *HOLDS_DEVICE)}},
)
CANCEL = Verb(
    desired="cancel",
    reason="CANCEL_REQUESTED",
    leads={
        **dict.fromkeys(("QUEUED", "PAUSED", "CANCELLED"), "CANCELLED"),
        **dict.fromkeys((*HOLDS_DEVICE, "PAUSING", "CANCELLING"), "CANCELLING"),
    },
)
