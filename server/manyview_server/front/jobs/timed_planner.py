"""Plan a job completely: what a request asks for, what it leaves open, and how long that takes."""

from __future__ import annotations

from dataclasses import replace

from manyview.v1 import train_job_service_pb2 as pb
from manyview_server.front.backends import StepTimer
from manyview_server.front.jobs.estimates import Estimator
from manyview_server.front.jobs.job_plans import JobPlan, JobPlanner
from manyview_server.front.jobs.open_settings import OpenSettings
from manyview_server.store.store import Store
from manyview_server.supervise.catalogue.catalogue import Catalogue

CREATE_WAIT_S = 3.0
"""The longest that the measurement of a configuration may delay the creation of a job."""
VALIDATE_WAIT_S = 10.0
"""The longest that it may delay the answer to a request that creates nothing."""
CHOOSE_WAIT_S = 8.0
"""The longest that the measurements for a choice may delay either, or twice that on a busy machine."""
CALLER_FRACTION = 0.3
"""The share of the caller's time that each of these waits may take. There are at most three."""


class TimedPlanner:
    """Makes plans. They are exact for the data set as it is now."""

    def __init__(
        self,
        planner: JobPlanner,
        store: Store,
        catalogue: Catalogue,
        timer: StepTimer | None,
        image_cache_bytes: int | None = None,
    ) -> None:
        """
        Args:
            timer: None means that what a request leaves open is as by default, and that nothing is estimated.
            image_cache_bytes: the setting of the server.
        """
        self._planner = planner
        self._estimator = Estimator(store, catalogue, timer, image_cache_bytes)
        self._open_settings = OpenSettings(catalogue, self._estimator)

    async def plan(self, request: pb.CreateTrainJobRequest, time_left_s: float | None) -> JobPlan:
        """Return the plan for a request, whose caller waits for `time_left_s`. Raises as `JobPlanner` does, and
        InvalidArgument if `time_budget_s` has no effect."""
        caller_s = CALLER_FRACTION * time_left_s if time_left_s else CHOOSE_WAIT_S + VALIDATE_WAIT_S
        plan = await self._planner.plan(request)
        plan = await self._open_settings.choose(plan, request.time_budget_s, min(CHOOSE_WAIT_S, caller_s))
        await self._planner.refuse_weights(plan)
        wait_s = VALIDATE_WAIT_S if request.validate_only else CREATE_WAIT_S
        return replace(plan, estimate=await self._estimator.estimate(plan, min(wait_s, caller_s)))
