"""Choose the network, the image size and the epochs that a request leaves open, by device, data set and time.

The largest of a few combinations that makes enough passes over the images in the time is taken, and as many epochs as
fit. The choice becomes part of the job's configuration, so nothing is chosen again later.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from manyview_server.counted_noun import number_of
from manyview_server.errors import DeadlineExceeded, InvalidArgument, ServiceError
from manyview_server.front.jobs import evaluation_interval
from manyview_server.front.jobs.combinations import (
    COMBINATIONS,
    MAX_EPOCHS,
    SMALL_SET_MIN_EPOCHS,
    Combination,
    fitting_size,
    is_small_set,
    kind_of,
    min_epochs,
    relative_cost,
    unmeasured,
)
from manyview_server.front.jobs.estimates import Estimator
from manyview_server.front.jobs.job_plans import JobPlan
from manyview_server.front.rpc.resource_names import invalid
from manyview_server.messages.timing import StepTimed
from manyview_server.rough_duration import HOUR_S, about
from manyview_server.supervise.catalogue.catalogue import Catalogue
from manyview_server.supervise.timers.estimate import device_words
from manyview_server.supervise.timers.job_seconds import Workload

OPEN = ("backbone", "image_size", "epochs")
DEFAULT_TIME_S = HOUR_S
MIN_TIME_S, MAX_TIME_S = 10.0, 30 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A combination as the configuration of a job. `cost` is relative to the other candidates."""

    settings: dict[str, Any]
    given: dict[str, Any]
    cost: float

    def evaluated_every(self, epochs: int) -> Candidate:
        """Return the candidate with this many epochs between evaluations."""
        settings, given = (evaluation_interval.put_into(each, epochs) for each in (self.settings, self.given))
        return replace(self, settings=settings, given=given)


class OpenSettings:
    """Fills in what plans leave open."""

    def __init__(self, catalogue: Catalogue, estimator: Estimator) -> None:
        self._catalogue = catalogue
        self._estimator = estimator

    async def choose(self, plan: JobPlan, time_s: float, wait_s: float) -> JobPlan:
        """Return the plan with everything chosen, and with a sentence that says what and why.

        Args:
            time_s: how long the job may take; 0 means an hour.
            wait_s: how long measurements may take, or twice that if the first one does not end.

        Raises:
            InvalidArgument: the time has no effect, or is out of range.
        """
        names = open_settings(plan)
        _check_time(time_s, names)
        if not names or self._estimator.device is None:
            return plan
        workload = await self._estimator.workload(plan)
        candidates = await asyncio.to_thread(self._candidates, plan, names, workload)
        if not candidates:
            return plan
        search = _Search(self._estimator, workload, time_s or DEFAULT_TIME_S, "epochs" in names, wait_s)
        try:
            chosen, timed = await search.find(candidates)
        except ServiceError as error:
            index = unmeasured(self._estimator.device, workload.num_images)
            chosen = candidates[min(index, len(candidates) - 1)]
            why = f"on {device_words(self._estimator.device)}, without a measurement: {error.message}"
            why += f"; it may take much longer than {about(time_s)}" if time_s else ""
        else:
            chosen = search.with_length(chosen, timed)
            why = search.reason(timed)
        settings = await asyncio.to_thread(self._catalogue.resolve, plan.method, chosen.given, plan.base)
        values = {name: settings[name] for name in ("backbone", "backbone_width", "image_size", "epochs", "max_steps")}
        words = [f"{name}={value}" for name, value in values.items() if name not in plan.given and name in chosen.given]
        if "epochs" in names and "epochs" not in chosen.given:
            words.append(f"epochs={settings['epochs']}")
        if evaluation_interval.is_in(chosen.given) and not evaluation_interval.is_in(plan.given):
            words.append(f"{evaluation_interval.NAME}={settings['evaluation']['knn_every_epochs']}")
        return replace(plan, settings=settings, given=chosen.given, choice=f"chosen: {', '.join(words)} {why}")

    def _candidates(self, plan: JobPlan, names: Sequence[str], workload: Workload) -> list[Candidate]:
        """Return the combinations that the rest of the configuration allows, the largest first."""
        assert self._estimator.device is not None
        found: list[Candidate] = []
        for combination in COMBINATIONS[kind_of(self._estimator.device)]:
            candidate = self._candidate(plan, names, workload, combination)
            if candidate and candidate.settings not in [other.settings for other in found]:
                found.append(candidate)
        return found

    def _candidate(
        self, plan: JobPlan, names: Sequence[str], workload: Workload, combination: Combination
    ) -> Candidate | None:
        size = (
            {"image_size": fitting_size(combination.image_size, workload.short_side)} if "image_size" in names else {}
        )
        network: dict[str, Any] = {}
        if "backbone" in names:
            network = {"backbone": combination.backbone}
            if combination.width != 1 and "backbone_width" not in plan.given:
                network["backbone_width"] = combination.width
        for chosen in ({**network, **size}, size):  # some methods take other networks only: theirs stays
            given = {**plan.given, **chosen}
            try:
                settings = self._catalogue.resolve(plan.method, given, plan.base)
            except InvalidArgument:
                continue
            return Candidate(settings=settings, given=given, cost=relative_cost(settings))
        return None


def open_settings(plan: JobPlan) -> tuple[str, ...]:
    """Return the names of the settings that a plan leaves open. Those of another job are not open."""
    if plan.base is not None:
        return ()
    settled = set(plan.given)
    if plan.settings["max_steps"] is not None:
        settled.add("epochs")
    if plan.settings.get("backbone_weights"):
        settled.add("backbone")  # the weights are of one network, which the default may be
    return tuple(name for name in OPEN if name not in settled)


class _Search:
    """The search for the largest candidate with which a job fits into its time."""

    def __init__(
        self,
        estimator: Estimator,
        workload: Workload,
        time_s: float,
        chooses_epochs: bool,
        wait_s: float,
    ) -> None:
        self._estimator = estimator
        self._workload = workload
        self._time_s = time_s
        self._chooses_epochs = chooses_epochs
        self._wait_s = wait_s
        self._ends_s = asyncio.get_running_loop().time() + wait_s

    async def find(self, candidates: Sequence[Candidate]) -> tuple[Candidate, StepTimed]:
        """Return the largest candidate that fits, or the smallest, with its measured times.

        The smallest is measured first. The costs say which others may fit, and the largest of these is measured then.

        Raises:
            ServiceError: nothing could be measured.
        """
        last = candidates[-1]
        try:
            timed = await self._measure(last)
        except DeadlineExceeded:  # a busy machine takes long to start the first process, which has started now
            self._ends_s += self._wait_s
            timed = await self._measure(last)
        for candidate in candidates[:-1]:
            scaled = replace(timed, step_s=timed.step_s * candidate.cost / last.cost)
            if not self._fits(candidate, scaled):
                continue
            try:
                measured = await self._measure(candidate)
            except ServiceError:
                break  # there is no time left, or it needs too much memory
            if self._fits(candidate, measured):
                return candidate, measured
            last, timed = candidate, measured
        if last is not candidates[-1]:
            last, timed = candidates[-1], await self._measure(candidates[-1])
        return last, timed

    def with_length(self, candidate: Candidate, timed: StepTimed) -> Candidate:
        """Return the candidate with as many epochs as fit into the time, and with the epochs between evaluations.

        Below one epoch, `max_steps` ends the job.
        """
        if not self._chooses_epochs:
            return candidate
        if evaluation_interval.is_in(candidate.given):
            return self._with_epochs(candidate, timed)
        wanted = evaluation_interval.wanted(self._workload, candidate.settings, timed)
        longest = self._with_epochs(candidate.evaluated_every(wanted), timed)
        every = evaluation_interval.bounded(wanted, longest.settings["epochs"])
        return self._with_epochs(candidate.evaluated_every(every) if every > 1 else candidate, timed)

    def _with_epochs(self, candidate: Candidate, timed: StepTimed) -> Candidate:
        least = max(1, math.ceil(candidate.settings["optimizer"]["warmup_epochs"]))
        fitting = bisect_right(
            range(1, MAX_EPOCHS + 1), self._time_s, key=lambda epochs: self._seconds(candidate, timed, epochs)
        )
        chosen = {"epochs": max(least, _rounded(fitting))}
        if fitting == 0 and chosen["epochs"] == 1:
            num_steps = max(1, self._workload.num_trained(candidate.settings) // timed.batch_size)
            spare_s = self._time_s - (self._seconds(candidate, timed, epochs=1) - num_steps * timed.step_s)
            chosen["max_steps"] = max(1, min(num_steps, int(spare_s / timed.step_s)))
        return replace(candidate, settings=candidate.settings | chosen, given=candidate.given | chosen)

    def reason(self, timed: StepTimed) -> str:
        """Return why a candidate was chosen, with the time that was measured for it."""
        images, device = number_of(self._workload.num_images, "image"), device_words(self._estimator.device or "")
        step = f"a step of {number_of(timed.batch_size, 'image')} takes {timed.step_s:.2g} s"
        few = ""
        if self._chooses_epochs and is_small_set(self._workload.num_images):
            few = f"; with so few images, {SMALL_SET_MIN_EPOCHS} passes or more come before a larger network"
        return f"for {images} and {about(self._time_s)} on {device}, where {step}{few}"

    async def _measure(self, candidate: Candidate) -> StepTimed:
        left_s = self._ends_s - asyncio.get_running_loop().time()
        return await self._estimator.time(self._workload, candidate.settings, left_s)

    def _fits(self, candidate: Candidate, timed: StepTimed) -> bool:
        epochs = min_epochs(self._workload.num_images) if self._chooses_epochs else None
        return self._seconds(candidate, timed, epochs) <= self._time_s

    def _seconds(self, candidate: Candidate, timed: StepTimed, epochs: int | None) -> float:
        settings = candidate.settings if epochs is None else {**candidate.settings, "epochs": epochs}
        return self._estimator.seconds(self._workload, settings, timed)


def _check_time(time_s: float, names: Sequence[str]) -> None:
    if not time_s:
        return
    if not MIN_TIME_S <= time_s <= MAX_TIME_S:
        allowed = f"must be at least {MIN_TIME_S:g} seconds and at most {MAX_TIME_S:,.0f}"
        raise invalid("time_budget_s", f"{allowed} (got {time_s:g})")
    if not names:
        text = "has no effect, because backbone, image_size and the job's length are set; leave one of them open"
        raise invalid("time_budget_s", text)


def _rounded(epochs: int) -> int:
    """Return a number with two digits that count."""
    unit = int(10 ** max(0, len(str(epochs)) - 2))
    return epochs // unit * unit
