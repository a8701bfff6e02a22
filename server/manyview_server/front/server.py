"""The gRPC server: its options, services, health, reflection, TLS and token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]
from grpc_reflection.v1alpha import reflection

from manyview.v1 import (
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    embed_service_pb2,
    embed_service_pb2_grpc,
    metrics_service_pb2,
    metrics_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    train_job_service_pb2,
    train_job_service_pb2_grpc,
)
from manyview_server.config import ServeSettings, SettingsError
from manyview_server.front.backends import (
    Embedder,
    LibraryBackbones,
    Previewer,
    Selector,
    StepTimer,
    Tables,
    Trainers,
    WeightsCheck,
)
from manyview_server.front.datasets.received_batch import read_batch
from manyview_server.front.datasets.service import DatasetService
from manyview_server.front.embeddings.dataset_export import DatasetExporter
from manyview_server.front.embeddings.image_embedder import ImageEmbedder
from manyview_server.front.embeddings.neighbors import NeighborFinder
from manyview_server.front.embeddings.queries import QueryReader
from manyview_server.front.embeddings.selection import SampleSelector
from manyview_server.front.embeddings.service import EmbedService
from manyview_server.front.embeddings.table_requests import TableRequests
from manyview_server.front.jobs.job_plans import JobPlanner
from manyview_server.front.jobs.metrics import MetricsService
from manyview_server.front.jobs.previews import Previews
from manyview_server.front.jobs.service import TrainJobService
from manyview_server.front.jobs.subscriptions import replay_pace
from manyview_server.front.jobs.subscriptions.replay_pace import ReplayPace
from manyview_server.front.jobs.timed_planner import TimedPlanner
from manyview_server.front.limits import Limits
from manyview_server.front.models.resolution import Models
from manyview_server.front.models.service import ModelService
from manyview_server.front.rpc import pages
from manyview_server.front.rpc.draining import Draining
from manyview_server.front.rpc.interceptors import CallInterceptor
from manyview_server.store.store import Store
from manyview_server.supervise.catalogue.catalogue import Catalogue
from manyview_server.supervise.catalogue.plugin_packages import packages_with_plugins
from manyview_server.supervise.cores import CoreBudget

UPLOAD_IMAGES = "/manyview.v1.DatasetService/UploadImages"
PROTO_FILES = (
    dataset_service_pb2,
    train_job_service_pb2,
    embed_service_pb2,
    metrics_service_pb2,
    model_service_pb2,
)
SERVICE_NAMES = tuple(
    service.full_name for file in PROTO_FILES for service in file.DESCRIPTOR.services_by_name.values()
)

WINDOW_BYTES = 1 << 20
"""The flow-control window of a stream. It carries 20 MB/s at a round trip of 50 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """The parts of the server that the services use."""

    store: Store
    catalogue: Catalogue
    library_backbones: LibraryBackbones
    weights_check: WeightsCheck
    trainers: Trainers
    embedder: Embedder
    tables: Tables
    selector: Selector
    previewer: Previewer
    step_timer: StepTimer | None = None
    """None if the durations of jobs are not estimated."""
    core_budget: CoreBudget | None = None
    """Knows whether jobs train. None if replays of event logs need not care."""

    def replay_cores(self) -> float | None:
        """Return how many cores replays of event logs may keep busy, or None for all."""
        budget = self.core_budget
        return replay_pace.SHARE * budget.num_cores if budget and budget.num_trainers else None


class Server:
    """The gRPC server. `bind` takes the port, `start` serves, and `stop` ends every call."""

    def __init__(self, settings: ServeSettings, backend: Backend, version: str, start_time: float) -> None:
        self._settings = settings
        self.backend = backend
        self._draining = Draining()
        self._health = health.HealthServicer()
        token = read_token(settings.token_file) if settings.token_file is not None else ""
        interceptor = CallInterceptor(self._draining, token, {UPLOAD_IMAGES: read_batch})
        self._server = grpc.aio.server(interceptors=[interceptor], options=channel_options(settings))
        self._add_services(backend, version, start_time)
        self.address = ""
        self._termination: asyncio.Task[bool] | None = None

    def _add_services(self, backend: Backend, version: str, start_time: float) -> None:
        limits, server, draining = Limits.of(self._settings), self._server, self._draining
        models = Models(backend.store, backend.catalogue, backend.library_backbones)
        datasets = DatasetService(backend.store, limits, draining)
        embed = self._embed_service(backend, models, limits, version)
        previews = Previews(backend.store, backend.catalogue, backend.previewer, limits)
        heartbeat_s, page_bytes = self._settings.heartbeat_s, pages.page_bytes(limits.max_message_bytes)
        planner = JobPlanner(backend.store, backend.catalogue, backend.library_backbones, backend.weights_check)
        timed_planner = TimedPlanner(
            planner, backend.store, backend.catalogue, backend.step_timer, self._settings.image_cache_bytes
        )
        jobs = TrainJobService(
            backend.store,
            backend.catalogue,
            timed_planner,
            backend.trainers,
            previews,
            draining,
            version,
            heartbeat_s,
            page_bytes,
        )
        pace = ReplayPace(backend.replay_cores)
        metrics = MetricsService(backend.store, draining, heartbeat_s, page_bytes, pace)
        model = ModelService(models, backend.catalogue, limits, version, start_time)
        add: list[tuple[Callable[[Any, grpc.aio.Server], None], object]] = [
            (dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server, datasets),
            (train_job_service_pb2_grpc.add_TrainJobServiceServicer_to_server, jobs),
            (embed_service_pb2_grpc.add_EmbedServiceServicer_to_server, embed),
            (metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server, metrics),
            (model_service_pb2_grpc.add_ModelServiceServicer_to_server, model),
        ]
        for add_to_server, servicer in add:
            add_to_server(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (*SERVICE_NAMES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME),
            server,
        )

    def _embed_service(self, backend: Backend, models: Models, limits: Limits, version: str) -> EmbedService:
        draining = self._draining
        embedder = ImageEmbedder(backend.embedder, limits.image)
        plugins = {name: metadata.version(name) for name in packages_with_plugins()}
        versions = {**plugins, **backend.catalogue.versions, "manyview": version}
        stored = TableRequests(
            backend.store,
            models,
            embedder,
            backend.tables,
            backend.selector,
            versions,
            data_type=self._settings.embedding_table_type,
        )
        queries = QueryReader(backend.store, embedder, limits)
        return EmbedService(
            models,
            embedder,
            limits,
            draining,
            DatasetExporter(stored, limits, draining),
            SampleSelector(stored, queries, draining),
            NeighborFinder(stored, queries, draining),
        )

    def bind(self) -> None:
        """Take the port. Connections wait until `start`. Raises SettingsError if another process has the port."""
        listen = self._settings.listen
        try:
            if self._settings.tls_cert is not None and self._settings.tls_key is not None:
                credentials = _credentials(self._settings.tls_cert, self._settings.tls_key)
                port = self._server.add_secure_port(listen, credentials)
            else:
                port = self._server.add_insecure_port(listen)
        except RuntimeError as error:
            raise SettingsError(f"cannot listen on {listen}: {error}") from error
        self.address = listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"

    async def start(self) -> str:
        """Serve, and report SERVING to health checks. Call `bind` first if nobody did. Return the address with its
        port."""
        if not self.address:
            self.bind()
        await self._server.start()
        self._termination = asyncio.create_task(self._server.wait_for_termination())
        for name in SERVICE_NAMES:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return self.address

    async def crashed(self) -> BaseException:
        """Wait until gRPC stops serving by itself, and return its error. This does not return after `stop`.

        A call to a method whose name is not UTF-8 ends the loop of grpc.aio (1.85), so one bad peer could stop the
        server for everybody.
        """
        assert self._termination is not None
        # This does not await the task itself: its cancellation would cancel gRPC's own wait for the end of its calls.
        await asyncio.wait({self._termination})
        if (error := self._termination.exception()) is not None:
            return error
        stopped: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        return await stopped

    async def begin_drain(self) -> None:
        """Refuse new calls, end streams with an error, and report NOT_SERVING to health checks."""
        self._draining.start()
        await self._health.enter_graceful_shutdown()

    async def until_quiet(self) -> None:
        """Wait until the open calls have ended. Streams of health and reflection are not counted, because they would
        never end."""
        await self._draining.until_quiet()

    async def stop(self, grace_s: float) -> None:
        """Accept no more calls, wait for the open calls for up to `grace_s`, then cancel them."""
        if self.address and self._termination is None:
            # gRPC releases a port only after it has served. So serve for a moment, and report that the server is
            # shutting down.
            await self.begin_drain()
            await self._server.start()
        await self._server.stop(grace_s)


def channel_options(settings: ServeSettings) -> list[tuple[str, int]]:
    """Return the options of gRPC.

    - SO_REUSEPORT is off, because two servers on one port would silently share its calls.
    - The number of streams is limited, because one connection could starve the others.
    - Pings find half-open connections. `keepalive_timeout_ms` is the kernel's limit for bytes that the peer has not
      acknowledged, and `ping_timeout_ms` limits the wait for the answer to a ping.
    - gRPC does not probe the bandwidth (`bdp_probe`), and the window is fixed. A probe is a ping, too, and on a slow
      path its answer comes after megabytes of data, which would exceed `ping_timeout_ms`.
    - Clients may ping twice as often as the server does.
    """
    ping_ms, answer_ms = round(settings.keepalive_s * 1000), round(settings.keepalive_timeout_s * 1000)
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", 256),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", ping_ms),
        ("grpc.keepalive_timeout_ms", answer_ms),
        ("grpc.http2.ping_timeout_ms", answer_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", ping_ms // 2),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
        ("grpc.server_handshake_timeout_ms", 3_000),
        ("grpc.max_connection_idle_ms", 600_000),
    ]


def read_token(path: Path) -> str:
    """Return the first line of the token file. Raises SettingsError unless it is printable ASCII and not empty."""
    try:
        token = next(iter(path.read_text().splitlines()), "").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"token_file: {error}") from error
    if not token or not token.isascii() or not token.isprintable():
        raise SettingsError(f"token_file: the first line of {path} must be a token of printable ASCII")
    return token


def _credentials(cert: Path, key: Path) -> grpc.ServerCredentials:
    try:
        return grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])
    except OSError as error:
        raise SettingsError(f"TLS: {error}") from error
