"""Estimate how long a new job takes on this device, from a step that was measured there."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from manyview_server.errors import InvalidArgument, ServiceError
from manyview_server.front.backends import StepTimer
from manyview_server.front.jobs.job_plans import JobPlan
from manyview_server.messages.timing import StepTimed
from manyview_server.rough_duration import HOUR_S, about
from manyview_server.store.store import Store
from manyview_server.supervise.catalogue.catalogue import Catalogue
from manyview_server.supervise.cores import kept_images_bytes
from manyview_server.supervise.timers.estimate import Estimate, device_words
from manyview_server.supervise.timers.job_seconds import Workload, is_short, job_seconds, num_steps

PROGRAM_START_S = 9.0
"""The least time that a measurement takes if its process must import PyTorch first."""
SAMPLE_IMAGES = 1_000
"""The number of images whose sizes are read. They stand for the whole data set."""
SMALLER_SIZE = 64
"""The image size that is suggested for a job that takes more than an hour."""
CLEARLY_LESS = 0.7
SHORTER_WAIT_S = 3.0
"""The longest that its measurement may delay an answer, beside that of the job itself."""


class Estimator:
    """Estimates the duration of jobs."""

    def __init__(
        self, store: Store, catalogue: Catalogue, timer: StepTimer | None, image_cache_bytes: int | None = None
    ) -> None:
        """`timer` None: nothing is estimated. `image_cache_bytes` is the setting of the server."""
        self._store = store
        self._catalogue = catalogue
        self._timer = timer
        self._image_cache_bytes = image_cache_bytes

    @property
    def device(self) -> str | None:
        """The name of the device on which steps are measured, or None if nothing is measured."""
        return self._timer.device if self._timer else None

    async def estimate(self, plan: JobPlan, wait_s: float) -> Estimate | None:
        """Return how long the job takes, or why that is not known. Wait for a measurement for at most `wait_s`.

        For a job of more than an hour, a second one may take as long, but at most `SHORTER_WAIT_S`.
        """
        if self._timer is None:
            return None
        workload = await self.workload(plan)
        if is_short(workload, plan.settings):
            return Estimate(text=f"less than a minute on {device_words(self._timer.device)}")
        try:
            timed = await self.time(workload, plan.settings, wait_s)
        except ServiceError as error:
            return Estimate(text=f"how long the job takes is not known: {error.message}")
        first_step = plan.source.step if plan.source else 0
        total_s = self.seconds(workload, plan.settings, timed, first_step)
        if num_steps(workload, plan.settings, timed.batch_size) <= first_step:
            return None  # there are too few images for a batch, or nothing is left to do
        text = f"{about(total_s)} on {device_words(self._timer.device)}"
        text += self._decoding_again(workload, plan.settings, timed)
        if total_s > HOUR_S:
            text += await self._shorter(workload, plan, total_s, min(wait_s, SHORTER_WAIT_S))
        return Estimate(total_s=total_s, step_s=timed.step_s, text=text)

    async def time(self, workload: Workload, settings: dict[str, Any], wait_s: float) -> StepTimed:
        """Return the times of a job's parts. Wait at most `wait_s`. Raises ServiceError that says why not."""
        assert self._timer is not None
        if wait_s < PROGRAM_START_S and not self._timer.starts_at_once:
            wait_s = 0.0  # only what was measured earlier
        return await self._timer.time(
            settings,
            num_images=workload.num_trained(settings),
            decode_size=workload.decode_size(settings),
            wait_s=wait_s,
        )

    def seconds(self, workload: Workload, settings: dict[str, Any], timed: StepTimed, first_step: int = 0) -> float:
        """Return how long a job takes, by measured times."""
        assert self._timer is not None
        num_kept = self._num_kept(workload, settings)
        return job_seconds(workload, settings, timed, self._timer.num_threads, first_step, num_kept)

    def _num_kept(self, workload: Workload, settings: dict[str, Any]) -> int:
        """Return how many decoded images a job that starts now would keep."""
        assert self._timer is not None
        device = self._catalogue.device(self._timer.device)
        room = kept_images_bytes(device.memory_bytes, device.name, self._image_cache_bytes)
        return room // (3 * workload.decode_size(settings) ** 2)

    def _decoding_again(self, workload: Workload, settings: dict[str, Any], timed: StepTimed) -> str:
        """Return words for a job that decodes images again in each epoch, because there is no room for all of them."""
        num_kept, num_images = self._num_kept(workload, settings), workload.num_decoded(settings)
        num_seen = num_steps(workload, settings, timed.batch_size) * timed.batch_size
        if num_kept >= num_images or num_seen <= workload.num_trained(settings):
            return ""
        return f"; {num_images - num_kept:,} of {num_images:,} images do not fit into memory and are decoded each time"

    async def workload(self, plan: JobPlan) -> Workload:
        """Return the numbers of a job's data set on which its duration depends."""
        dataset = await self._store.datasets.get(plan.dataset_id)
        first = await self._store.datasets.snapshot(plan.dataset_id, min(SAMPLE_IMAGES, dataset.num_images))
        sample = await asyncio.to_thread(first.rows.all)
        widths, heights = sample["width"].astype(np.int64), sample["height"].astype(np.int64)
        is_common = len(sample) > 0 and bool(np.all(widths == widths[0]) and np.all(heights == widths[0]))
        return Workload(
            num_images=max(dataset.num_images, plan.min_images),
            num_labelled=dataset.num_labelled,
            pixels=float(np.mean(widths * heights)) if len(sample) else 0.0,
            short_side=int(np.median(np.minimum(widths, heights))) if len(sample) else 0,
            common_side=int(widths[0]) if is_common else 0,
            follows=plan.min_images > 0,
        )

    async def _shorter(self, workload: Workload, plan: JobPlan, total_s: float, wait_s: float) -> str:
        """Return a hint how to train in less time, with the time that it takes."""
        if plan.settings["image_size"] > SMALLER_SIZE and plan.source is None:
            try:
                given = {**plan.given, "image_size": SMALLER_SIZE}
                settings = await asyncio.to_thread(self._catalogue.resolve, plan.method, given, plan.base)
                faster = await self.time(workload, settings, wait_s)
                if (seconds := self.seconds(workload, settings, faster)) < CLEARLY_LESS * total_s:
                    return f"; --set image_size={SMALLER_SIZE} takes {about(seconds)}"
            except (InvalidArgument, ServiceError):
                pass  # other settings want the size that they have, or there is no time left to measure it
        epochs = int(plan.settings["epochs"] * HOUR_S / total_s)
        if epochs < 1 or plan.settings["max_steps"] is not None:
            return ""
        return f"; --epochs {epochs} takes about an hour"
