"""TrainJobService: create, list, pause, resume, cancel and delete jobs, preview views, and read logs."""
# ruff: noqa: N802 (the contract names the methods)

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

import grpc

from manyview.v1 import train_job_service_pb2 as pb
from manyview.v1 import train_job_service_pb2_grpc
from manyview_server.front.backends import Trainers
from manyview_server.front.convert import job_messages
from manyview_server.front.jobs.job_plans import JobPlan
from manyview_server.front.jobs.log_tail import LogTail
from manyview_server.front.jobs.previews import Previews
from manyview_server.front.jobs.timed_planner import TimedPlanner
from manyview_server.front.rpc import page_tokens, pages
from manyview_server.front.rpc import resource_names as names
from manyview_server.front.rpc.draining import Draining
from manyview_server.front.rpc.idempotency import once
from manyview_server.store.jobs.job_verbs import CANCEL, PAUSE, RESUME, Verb
from manyview_server.store.records import Job
from manyview_server.store.store import Store
from manyview_server.supervise.catalogue.catalogue import Catalogue

Context = grpc.aio.ServicerContext[Any, Any]
VerbRequest = pb.PauseTrainJobRequest | pb.ResumeTrainJobRequest | pb.CancelTrainJobRequest
VerbReply = TypeVar("VerbReply", pb.PauseTrainJobResponse, pb.ResumeTrainJobResponse, pb.CancelTrainJobResponse)


class TrainJobService(train_job_service_pb2_grpc.TrainJobServiceServicer):
    """The calls of TrainJobService."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        planner: TimedPlanner,
        trainers: Trainers,
        previews: Previews,
        draining: Draining,
        version: str,
        heartbeat_s: float,
        page_bytes: int,
    ) -> None:
        self._store = store
        self._planner = planner
        self._trainers = trainers
        self._previews = previews
        self._version = version
        self._page_bytes = page_bytes
        self._log_tail = LogTail(store, draining, heartbeat_s, page_bytes)
        self._methods = _methods(catalogue)

    async def CreateTrainJob(self, request: pb.CreateTrainJobRequest, context: Context) -> pb.CreateTrainJobResponse:
        """Queue a job, with an estimate of its duration. With `validate_only`, check it and return it without creating
        it."""
        if request.validate_only:
            return await self._validated(await self._planner.plan(request, context.time_remaining()))

        async def create() -> pb.CreateTrainJobResponse:
            # The plan is made here, so that a repeated request gets its answer although the job that it names may have
            # changed or been deleted.
            wanted = await self._planner.plan(request, context.time_remaining())
            job = await self._store.jobs.create(
                wanted.train_job_id,
                wanted.dataset_id,
                wanted.method,
                wanted.settings,
                self._version,
                source=wanted.source,
                min_images=wanted.min_images,
                notes=wanted.notes,
            )
            self._trainers.wake()
            return pb.CreateTrainJobResponse(train_job=_with_answers(await _train_job(job), wanted))

        return await once(self._store.idempotency_log, request, request.request_id, create, pb.CreateTrainJobResponse)

    async def _validated(self, wanted: JobPlan) -> pb.CreateTrainJobResponse:
        dataset = await self._store.datasets.get(wanted.dataset_id)
        config = await asyncio.to_thread(job_messages.struct, {**wanted.settings, "method": wanted.method})
        job = pb.TrainJob(
            name=f"trainJobs/{wanted.train_job_id}" if wanted.train_job_id else "",
            dataset=f"datasets/{wanted.dataset_id}",
            num_images=0 if wanted.min_images else dataset.num_images,
            config=config,
            server_version=self._version,
            continued_from=wanted.source.name if wanted.source else "",
            follow=job_messages.follow(wanted.min_images),
        )
        return pb.CreateTrainJobResponse(train_job=_with_answers(job, wanted))

    async def GetTrainJob(self, request: pb.GetTrainJobRequest, context: Context) -> pb.GetTrainJobResponse:
        """Return one job."""
        job = await self._store.jobs.get(names.train_job_id(request.name))
        return pb.GetTrainJobResponse(train_job=await _train_job(job))

    async def ListTrainJobs(self, request: pb.ListTrainJobsRequest, context: Context) -> pb.ListTrainJobsResponse:
        """Return a page of the jobs, newest first."""
        size = page_tokens.page_size(request.page_size, default=100, most=1000)
        token = page_tokens.decode_page_token("trainJobs", request.page_token, page_tokens.POSITION)
        read = partial(self._store.jobs.list, page_token=token, max_bytes=self._page_bytes)
        jobs, next_page_token = await pages.page(read, size, job_messages.train_job, self._page_bytes)
        token = page_tokens.encode_page_token("trainJobs", next_page_token)
        return pb.ListTrainJobsResponse(train_jobs=jobs, next_page_token=token)

    async def DeleteTrainJob(self, request: pb.DeleteTrainJobRequest, context: Context) -> pb.DeleteTrainJobResponse:
        """Delete a terminal job with its events and checkpoints."""
        job_id = names.train_job_id(request.name)

        async def delete() -> pb.DeleteTrainJobResponse:
            await self._store.jobs.delete(job_id)
            return pb.DeleteTrainJobResponse()

        return await once(self._store.idempotency_log, request, request.request_id, delete, pb.DeleteTrainJobResponse)

    async def PauseTrainJob(self, request: pb.PauseTrainJobRequest, context: Context) -> pb.PauseTrainJobResponse:
        """Ask a job to pause."""
        return await self._ask(request, PAUSE, pb.PauseTrainJobResponse)

    async def ResumeTrainJob(self, request: pb.ResumeTrainJobRequest, context: Context) -> pb.ResumeTrainJobResponse:
        """Ask a paused job to continue."""
        return await self._ask(request, RESUME, pb.ResumeTrainJobResponse)

    async def CancelTrainJob(self, request: pb.CancelTrainJobRequest, context: Context) -> pb.CancelTrainJobResponse:
        """Ask a job to stop for good."""
        return await self._ask(request, CANCEL, pb.CancelTrainJobResponse)

    async def _ask(self, request: VerbRequest, verb: Verb, reply_type: type[VerbReply]) -> VerbReply:
        job_id = names.train_job_id(request.name)

        async def ask() -> VerbReply:
            job = await self._store.jobs.request(job_id, verb)
            self._trainers.wake()
            return reply_type(train_job=await _train_job(job))

        return await once(self._store.idempotency_log, request, request.request_id, ask, reply_type)

    async def ListMethods(self, request: pb.ListMethodsRequest, context: Context) -> pb.ListMethodsResponse:
        """Return the methods and backbones that this server can train."""
        return self._methods

    async def PreviewViews(self, request: pb.PreviewViewsRequest, context: Context) -> pb.PreviewViewsResponse:
        """Return the views of a few images. If the caller goes away, the work is cancelled."""
        return await self._previews.views(request, context.time_remaining() or 0.0)

    async def TailLogs(self, request: pb.TailLogsRequest, context: Context) -> AsyncIterator[pb.TailLogsResponse]:
        """Yield the newest log lines of a job, then new ones until the job is terminal."""
        async with aclosing(self._log_tail.messages(request)) as messages:
            async for message in messages:
                yield message


def _with_answers(message: pb.TrainJob, plan: JobPlan) -> pb.TrainJob:
    """Return the message with the answers that only the caller who plans a job gets."""
    message.choice = plan.choice
    if plan.estimate:
        message.estimate.CopyFrom(job_messages.estimate(plan.estimate))
    return message


async def _train_job(job: Job) -> pb.TrainJob:
    """Return the job as a message. A configuration may be large, so it is converted off the event loop."""
    return await asyncio.to_thread(job_messages.train_job, job)


def _methods(catalogue: Catalogue) -> pb.ListMethodsResponse:
    """Return the answer to every ListMethods. It is made once, because the schemas are long."""
    methods = [
        pb.Method(name=m.name, title=m.title, paper=m.paper, config_schema_json=json.dumps(m.schema))
        for m in catalogue.methods
    ]
    backbones = [
        pb.Backbone(name=b.name, feature_dim=b.feature_dim, num_parameters=b.num_parameters)
        for b in catalogue.backbones
    ]
    problems = [
        pb.PluginProblem(group=p.group, name=p.name, package=p.package, problem=p.problem)
        for p in catalogue.plugin_errors
    ]
    return pb.ListMethodsResponse(methods=methods, backbones=backbones, plugin_problems=problems)
