"""Plan a job: check a CreateTrainJob request, and fill in what it takes over from another job."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.struct_pb2 import Struct

from manyview.v1 import train_job_service_pb2 as pb
from manyview_server.errors import NotFound
from manyview_server.front.backends import LibraryBackbones, WeightsCheck
from manyview_server.front.convert import job_messages
from manyview_server.front.jobs import impossible_jobs
from manyview_server.front.rpc import resource_names as names
from manyview_server.store.records import Checkpoint, Dataset, Job
from manyview_server.store.store import Store
from manyview_server.supervise.catalogue.catalogue import Catalogue
from manyview_server.supervise.timers.estimate import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """A job that can be created.

    `settings` is the complete configuration: `given` over `base`, another job's, or over the defaults. `source` is the
    checkpoint from which the job continues. `min_images` is above 0 if the job follows its data set. `choice` says what
    was chosen because the request left it open, and why.
    """

    train_job_id: str
    dataset_id: str
    method: str
    settings: dict[str, Any]
    given: dict[str, Any]
    base: Mapping[str, Any] | None
    source: Checkpoint | None
    min_images: int
    choice: str = ""
    estimate: Estimate | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """The first lines of the job's log."""
        known = self.estimate and self.estimate.total_s
        lines = (self.choice, f"estimated time: {self.estimate.text}" if self.estimate and known else "")
        return tuple(line for line in lines if line)


class JobPlanner:
    """Plans jobs, by what the store holds and the torch side offers."""

    def __init__(
        self, store: Store, catalogue: Catalogue, library_backbones: LibraryBackbones, weights_check: WeightsCheck
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._library_backbones = library_backbones
        self._weights_check = weights_check

    async def plan(self, request: pb.CreateTrainJobRequest) -> JobPlan:
        """Check and resolve a request.

        Raises:
            InvalidArgument: with every violation.
            NotFound: the data set or the other job does not exist.
            FailedPrecondition: DATASET_TOO_SMALL.
        """
        job_id = names.new_id(request.train_job_id, "train_job_id") if request.train_job_id else ""
        if request.clone_from and request.continue_from:
            raise names.invalid("continue_from", "set at most one of clone_from and continue_from")
        origin, source = await _origin(request, self._store)
        dataset_id, method = _dataset_and_method(request, origin)
        base = origin.settings if origin else None
        given = await asyncio.to_thread(job_messages.plain, request.config)
        settings = await asyncio.to_thread(self._catalogue.resolve, method, given, base)
        if origin is not None and source is not None:
            await asyncio.to_thread(self._catalogue.check_continuation, method, origin.settings, settings)
        elif file := settings.get("backbone_weights"):
            await _refuse_missing(self._store, file)
        await self._refuse_unknown(settings["backbone"], base or {})
        min_images = _min_images(request, settings)
        dataset = await self._dataset(dataset_id, None if request.dataset else origin)
        if not min_images:
            impossible_jobs.refuse_too_few(dataset, settings)
        if origin is not None and source is not None:
            impossible_jobs.refuse_finished(source, origin, dataset, settings, follows=bool(min_images))
        return JobPlan(
            train_job_id=job_id,
            dataset_id=dataset_id,
            method=method,
            settings=settings,
            given=given,
            base=base,
            source=source,
            min_images=min_images,
        )

    async def refuse_weights(self, plan: JobPlan) -> None:
        """Raise InvalidArgument if the weights with which a job is to start do not fit its network."""
        if plan.source is not None or not plan.settings.get("backbone_weights"):
            return
        settings = {**plan.settings, "method": plan.method}
        if problem := await self._weights_check.problem(self._store.weights_dir, settings):
            raise names.invalid("config.backbone_weights", problem.removeprefix("backbone_weights: "))

    async def _dataset(self, dataset_id: str, origin: Job | None) -> Dataset:
        """Return the data set, which the request names, or `origin`, the other job."""
        try:
            return await self._store.datasets.get(dataset_id)
        except NotFound as error:
            if origin is None:
                raise
            message = f"the data set {dataset_id!r} of train job {origin.train_job_id!r} was deleted; name another one"
            raise NotFound(error.reason, message, metadata=error.metadata) from error

    async def _refuse_unknown(self, backbone: str, base: Mapping[str, Any]) -> None:
        """Raise InvalidArgument if a library has no such network. The backbone of another job exists."""
        if backbone != base.get("backbone") and (problem := await self._library_backbones.problem(backbone)):
            raise names.invalid("config.backbone", problem)


def _dataset_and_method(request: pb.CreateTrainJobRequest, origin: Job | None) -> tuple[str, str]:
    """Return the id of the data set and the method: the request's, or those of the other job."""
    if origin is None:
        return names.dataset_id(request.dataset, "dataset"), request.method
    dataset_id = names.dataset_id(request.dataset, "dataset") if request.dataset else origin.dataset_id
    method = request.method or origin.method
    if method != origin.method:
        raise names.invalid("method", f"must be {origin.method!r}, the other job's, or empty (got {method!r})")
    return dataset_id, method


def resolve(catalogue: Catalogue, method: str, config: Struct, base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the complete configuration; see `Catalogue.resolve`. It is slow: call it off the event loop."""
    return catalogue.resolve(method, job_messages.plain(config), base)


async def _refuse_missing(store: Store, file: str) -> None:
    """Raise InvalidArgument now if a file of weights is missing, and not when the job starts."""
    if not await asyncio.to_thread((store.weights_dir / file).is_file):
        message = f"there is no {names.shown(file)} in the server's directory of weights"
        raise names.invalid("config.backbone_weights", message)


def _min_images(request: pb.CreateTrainJobRequest, settings: Mapping[str, Any]) -> int:
    """Return 0 if the job does not follow its data set. Raises InvalidArgument."""
    if not request.HasField("follow"):
        return 0
    field, least = "follow.min_images", settings["batch_size"] or impossible_jobs.MIN_IMAGES
    if settings["evaluation"]["knn_every_epochs"]:
        # Images are held out by their hashes, so the share varies in small data sets.
        least = math.ceil(1.25 * least / (1 - settings["evaluation"]["knn_holdout_fraction"]))
    if request.follow.min_images < least:
        what = "for a batch besides the images that are held out for kNN"
        raise names.invalid(field, f"must be at least {least}, {what} (got {request.follow.min_images})")
    if settings["max_steps"] is None:
        raise names.invalid(
            "config.max_steps", "is required for a job that follows its data set, because its epochs grow"
        )
    if "epochs" in request.config.fields:
        raise names.invalid(
            "config.epochs", "has no effect in a job that follows its data set, because max_steps ends it"
        )
    return request.follow.min_images


async def _origin(request: pb.CreateTrainJobRequest, store: Store) -> tuple[Job | None, Checkpoint | None]:
    """Return the other job that the request names, and its checkpoint if the new job continues from there."""
    if request.clone_from:
        return await store.jobs.get(names.train_job_id(request.clone_from, "clone_from")), None
    if not request.continue_from:
        return None, None
    name = names.model_name(request.continue_from, "continue_from")
    if name.backbone:
        raise names.invalid(
            "continue_from", f"{names.shown(request.continue_from)} is not a job or one of its checkpoints"
        )
    job = await store.jobs.get(name.train_job_id)
    return job, await store.checkpoints.get(name.train_job_id, name.step)
