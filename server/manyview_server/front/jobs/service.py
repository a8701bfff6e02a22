"""TrainJobService: jobs and what can be asked of them."""
# ruff: noqa: N802 (the contract names the methods)

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any, TypeVar

import grpc

from manyview.v1 import train_job_service_pb2 as pb
from manyview.v1 import train_job_service_pb2_grpc
from manyview_server.front.backends import Trainers
from manyview_server.front.convert import dataset_messages, job_messages
from manyview_server.front.jobs import job_plans
from manyview_server.front.jobs.job_plans import JobPlan
from manyview_server.front.jobs.previews import Previews
from manyview_server.front.rpc import page_tokens, pages
from manyview_server.front.rpc import resource_names as names
from manyview_server.front.rpc.draining import Draining
from manyview_server.front.rpc.idempotency import once
from manyview_server.store.event_payloads import StateChange
from manyview_server.store.job_states import TERMINAL_STATES
from manyview_server.store.jobs.job_verbs import CANCEL, PAUSE, RESUME, Verb
from manyview_server.store.records import Event, Job
from manyview_server.store.store import Store
from manyview_server.supervise.catalogue.catalogue import Catalogue

Context = grpc.aio.ServicerContext[Any, Any]
VerbRequest = pb.PauseTrainJobRequest | pb.ResumeTrainJobRequest | pb.CancelTrainJobRequest
VerbReply = TypeVar("VerbReply", pb.PauseTrainJobResponse, pb.ResumeTrainJobResponse, pb.CancelTrainJobResponse)

PAGE_EVENTS = 1000
MAX_LOG_LINES = 10_000
LINES_PER_MESSAGE = 200
DEFAULT_LOG_LINES = 100
LOGGED = {"log", "alert"}


class TrainJobService(train_job_service_pb2_grpc.TrainJobServiceServicer):
    """Training."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        trainers: Trainers,
        previews: Previews,
        draining: Draining,
        version: str,
        heartbeat_s: float,
        page_bytes: int,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._trainers = trainers
        self._previews = previews
        self._draining = draining
        self._version = version
        self._heartbeat_s = heartbeat_s
        self._page_bytes = page_bytes
        self._methods = _methods(catalogue)

    async def CreateTrainJob(self, request: pb.CreateTrainJobRequest, context: Context) -> pb.CreateTrainJobResponse:
        """Queue a job, or only check it."""
        if request.validate_only:
            return await self._preview(await job_plans.plan(request, self._store, self._catalogue))

        async def create() -> pb.CreateTrainJobResponse:
            # Planned here: a request that is repeated gets its answer, whatever has become of the job that it names.
            wanted = await job_plans.plan(request, self._store, self._catalogue)
            job = await self._store.jobs.create(
                wanted.train_job_id,
                wanted.dataset_id,
                wanted.method,
                wanted.settings,
                self._version,
                source=wanted.source,
                min_images=wanted.min_images,
            )
            self._trainers.wake()
            return pb.CreateTrainJobResponse(train_job=await _train_job(job))

        return await once(self._store.requests, request, request.request_id, create, pb.CreateTrainJobResponse)

    async def _preview(self, wanted: JobPlan) -> pb.CreateTrainJobResponse:
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
        return pb.CreateTrainJobResponse(train_job=job)

    async def GetTrainJob(self, request: pb.GetTrainJobRequest, context: Context) -> pb.GetTrainJobResponse:
        """One job."""
        job = await self._store.jobs.get(names.train_job_id(request.name))
        return pb.GetTrainJobResponse(train_job=await _train_job(job))

    async def ListTrainJobs(self, request: pb.ListTrainJobsRequest, context: Context) -> pb.ListTrainJobsResponse:
        """A page of jobs, newest first."""
        size = page_tokens.page_size(request.page_size, default=100, most=1000)
        token = page_tokens.decode_page_token("trainJobs", request.page_token, page_tokens.POSITION)
        read = partial(self._store.jobs.list, page_token=token, max_bytes=self._page_bytes)
        jobs, next_page_token = await pages.page(read, size, job_messages.train_job, self._page_bytes)
        token = page_tokens.encode_page_token("trainJobs", next_page_token)
        return pb.ListTrainJobsResponse(train_jobs=jobs, next_page_token=token)

    async def DeleteTrainJob(self, request: pb.DeleteTrainJobRequest, context: Context) -> pb.DeleteTrainJobResponse:
        """Remove a terminal job with its events and checkpoints."""
        job_id = names.train_job_id(request.name)

        async def delete() -> pb.DeleteTrainJobResponse:
            await self._store.jobs.delete(job_id)
            return pb.DeleteTrainJobResponse()

        return await once(self._store.requests, request, request.request_id, delete, pb.DeleteTrainJobResponse)

    async def PauseTrainJob(self, request: pb.PauseTrainJobRequest, context: Context) -> pb.PauseTrainJobResponse:
        """Ask a job to stop for a while."""
        return await self._ask(request, PAUSE, pb.PauseTrainJobResponse)

    async def ResumeTrainJob(self, request: pb.ResumeTrainJobRequest, context: Context) -> pb.ResumeTrainJobResponse:
        """Ask a job to go on."""
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

        return await once(self._store.requests, request, request.request_id, ask, reply_type)

    async def ListMethods(self, request: pb.ListMethodsRequest, context: Context) -> pb.ListMethodsResponse:
        """What can be trained here."""
        return self._methods

    async def PreviewViews(self, request: pb.PreviewViewsRequest, context: Context) -> pb.PreviewViewsResponse:
        """The views of a few images. A caller that goes away takes the work with it."""
        return await self._previews.views(request, context.time_remaining() or 0.0)

    async def TailLogs(self, request: pb.TailLogsRequest, context: Context) -> AsyncIterator[pb.TailLogsResponse]:
        """Yield the newest lines, then new ones until the job is terminal, with heartbeats while there are none."""
        job_id = names.train_job_id(request.train_job, "train_job")
        if not 0 <= request.num_lines <= MAX_LOG_LINES:
            raise names.invalid("num_lines", f"{request.num_lines} is outside of 0 to {MAX_LOG_LINES:,}")
        job = await self._store.jobs.get(job_id)
        # What comes after this is read as it comes; what is newer than this among the newest lines is left to that.
        cursor, state = job.last_sequence, job.state
        newest = await self._store.events.tail_logs(job_id, request.num_lines or DEFAULT_LOG_LINES)
        for message in _messages([e for e in newest if e.sequence <= cursor], self._page_bytes):
            yield message
        clock = asyncio.get_running_loop().time
        said = clock()
        while request.follow:
            events = await self._store.events.read(job_id, cursor, PAGE_EVENTS)
            changes = [event.payload for event in events if isinstance(event.payload, StateChange)]
            state = changes[-1].to_state if changes else state
            for message in _messages([e for e in events if e.kind in LOGGED], self._page_bytes):
                yield message
                said = clock()
            if events:
                cursor = events[-1].sequence
            elif state in TERMINAL_STATES:
                break
            else:
                quiet_s = max(0.0, self._heartbeat_s - (clock() - said))
                await self._draining.interrupting(self._store.events.wait(job_id, cursor, quiet_s))
            # Scalars wake this up without a line to send, so only the time since the last message counts.
            if clock() - said >= self._heartbeat_s:
                yield pb.TailLogsResponse()
                said = clock()
        yield pb.TailLogsResponse(end=True)


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


def _messages(events: list[Event], page_bytes: int) -> Iterator[pb.TailLogsResponse]:
    """Yield messages of a few hundred lines each, fewer if they are long. Each message is made when it is sent."""
    at = 0
    while at < len(events):
        lines = pages.fitting(events[at : at + LINES_PER_MESSAGE], _log_line, page_bytes)
        at += len(lines)
        yield pb.TailLogsResponse(lines=lines)


def _log_line(event: Event) -> pb.LogLine:
    text = job_messages.log_text(event)
    return pb.LogLine(sequence=event.sequence, time=dataset_messages.timestamp(event.time), log=text)
