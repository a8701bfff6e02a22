"""The process of the server: start up, serve, drain."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import time
from contextlib import AsyncExitStack, suppress

from manyview_server.config import ServeSettings, SettingsError
from manyview_server.errors import ServiceError
from manyview_server.front.loop_watchdog import LoopWatchdog
from manyview_server.front.server import Backend, Server
from manyview_server.front.start_progress import StartProgress, Unseen
from manyview_server.front.start_warnings import log_plugin_errors, warn_if_unprotected
from manyview_server.store.embeddings.cache import EmbeddingCache
from manyview_server.store.images.uploads import group_limit
from manyview_server.store.lock import DataLock
from manyview_server.store.store import Store
from manyview_server.store.unusable import StoreUnusable
from manyview_server.supervise.catalogue.catalogue import Catalogue, CatalogueError
from manyview_server.supervise.catalogue.catalogue_cache import read_or_describe
from manyview_server.supervise.catalogue.library_backbones import LibraryBackbones
from manyview_server.supervise.catalogue.weights_check import WeightsCheck
from manyview_server.supervise.cores import CoreBudget, available_cores, cache_bytes, embed_queue_bytes
from manyview_server.supervise.embedders.embedder import EmbedderLimits, EmbedderSupervisor
from manyview_server.supervise.embedders.tables import EmbeddingTables
from manyview_server.supervise.fork_server import ForkServer, is_wanted
from manyview_server.supervise.previewers.previewer import PreviewerLimits, PreviewerSupervisor
from manyview_server.supervise.selectors.selector import SelectorPool
from manyview_server.supervise.slow_images import SlowImages
from manyview_server.supervise.timers.step_timer import StepTimerSupervisor
from manyview_server.supervise.timers.step_times import StepTimes
from manyview_server.supervise.trainers.attempt import Patience
from manyview_server.supervise.trainers.jobs import JobSupervisor
from manyview_server.system import awake_time

CATALOGUE = "catalogue.json"
STEP_TIMES = "step-times.json"
PARENT_POLL_S = 0.5
STOP_FRACTION = 0.8
"""The share of a drain that a trainer has for its last step and its checkpoint. After that it is killed, while there is
still time to record its death."""
LAST_ANSWERS_S = 0.5
"""At the end of a drain, the time for answers that are still being sent."""
CLOSE_S = 10.0
"""After the drain, the time for the processes that answer calls and the fork server together to end."""
WARM_UP_S = 2.0
"""A server that has started no worker yet starts its fork server after this time."""

log = logging.getLogger(__name__)


class App:
    """One server from start to end. `run` returns the exit status."""

    def __init__(
        self,
        settings: ServeSettings,
        version: str,
        *,
        lock: DataLock | None = None,
        on_start: StartProgress | None = None,
    ) -> None:
        """`lock` is the lock of the data directory, if the caller already holds it. `on_start` shows the steps of the
        start."""
        self._settings = settings
        self._on_start = on_start or Unseen()
        self._lock = lock
        self._version = version
        self._stop = asyncio.Event()
        self._slow_images = SlowImages()
        self._parent = os.getppid()

    async def run(self) -> int:
        """Start, serve until a signal or the parent's end, then drain.

        Returns:
            0 after a drain, 1 if the server could not start.
        """
        try:
            await self.startup()
        except (SettingsError, StoreUnusable, CatalogueError, ServiceError, OSError) as error:
            log.error("cannot start: %s", error)
            return 1
        except Exception:
            log.exception("cannot start: internal error")
            return 1
        # Imported objects are never freed. Freezing them shortens the runs of the garbage collector, during which every
        # call waits.
        gc.collect()
        gc.freeze()
        watchdog = LoopWatchdog()
        watchdog.start()
        try:
            await self.serve()
            await self.drain()
        finally:
            watchdog.stop()
        return 0

    async def startup(self) -> None:
        """Open the store, describe the torch side, take the port, start the jobs, then serve.

        The port is taken before the jobs start, so that a server that cannot serve starts no trainer. Calls are
        accepted last: no call is answered, and health does not say SERVING, before the jobs are up. If a step fails,
        the earlier steps are undone.
        """
        self._on_start.show("opening the data directory")
        self._store = self._open_store()
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._store.close)
            self._on_start.show("listing methods and devices; imports PyTorch once")
            catalogue = await read_or_describe(self._settings.data / CATALOGUE)
            log_plugin_errors(catalogue)
            devices = catalogue.choose_devices(self._settings.device)
            backend = self._backend(catalogue, devices)
            undo.push_async_callback(self._close_workers)
            self._start_time = time.time()
            self._server = Server(self._settings, backend, self._version, self._start_time)
            self._server.bind()
            undo.push_async_callback(self._server.stop, 0.0)
            self._on_start.show("resuming unfinished jobs")
            await self._jobs.start()
            undo.push_async_callback(self._jobs.drain)
            address = await self._server.start()
            undo.pop_all()
        self._on_start.end()
        warn_if_unprotected(self._settings)
        print(json.dumps({"event": "serving", "address": address, "pid": os.getpid()}), flush=True)
        log.info("serving on %s, devices %s, data in %s", address, ", ".join(devices), self._settings.data)

    def _open_store(self) -> Store:
        settings = self._settings
        limit = group_limit(max_batch_images=settings.max_batch_images, max_batch_bytes=settings.max_message_bytes)
        return Store.open(
            settings.data, lock=self._lock, limit=limit, accept_mismatch=settings.accept_mismatched_database
        )

    def _backend(self, catalogue: Catalogue, devices: tuple[str, ...]) -> Backend:
        """Make the supervisors of the worker processes. No process starts yet."""
        settings = self._settings
        budget = CoreBudget(available_cores(), num_devices=len(devices))
        self._forks = ForkServer(budget.trainer_threads) if is_wanted(settings.fork_workers) else None
        times = self._step_times(catalogue, devices[0])
        self._jobs = self._job_supervisor(catalogue, devices, budget, times)
        self._embedder = EmbedderSupervisor(
            budget,
            devices[0],
            forks=self._forks,
            limits=EmbedderLimits(
                max_bytes=embed_queue_bytes(settings.max_message_bytes), decode_cpu_s=settings.decode_cpu_s
            ),
            slow_images=self._slow_images,
        )
        self._selector = SelectorPool(budget, devices[0], forks=self._forks)
        self._previewer = PreviewerSupervisor(
            forks=self._forks,
            limits=PreviewerLimits(decode_cpu_s=settings.decode_cpu_s),
            slow_images=self._slow_images,
        )
        cache = EmbeddingCache(self._store.embeddings_dir, settings.embedding_cache_bytes)
        self._step_timer = StepTimerSupervisor(times, budget, devices[0], forks=self._forks) if times else None
        return Backend(
            store=self._store,
            catalogue=catalogue,
            library_backbones=LibraryBackbones(forks=self._forks),
            weights_check=WeightsCheck(forks=self._forks),
            trainers=self._jobs,
            embedder=self._embedder,
            tables=EmbeddingTables(self._store, self._embedder, cache),
            selector=self._selector,
            previewer=self._previewer,
            step_timer=self._step_timer,
            core_budget=budget,
        )

    def _step_times(self, catalogue: Catalogue, device: str) -> StepTimes | None:
        """Return the measured times of steps on the device that measures them, or None if nothing is measured."""
        if not self._settings.measure_steps:
            return None
        known = {**catalogue.versions, "manyview": self._version, "device": catalogue.device(device).description}
        return StepTimes(self._settings.data / STEP_TIMES, known)

    def _job_supervisor(
        self, catalogue: Catalogue, devices: tuple[str, ...], budget: CoreBudget, times: StepTimes | None
    ) -> JobSupervisor:
        memory = {device.name: device.memory_bytes for device in catalogue.devices}
        caches = {name: cache_bytes(memory[name], name) for name in devices}
        patience = Patience(
            silence_s=self._settings.trainer_silence_s,
            step_s=self._settings.trainer_step_s,
            stop_s=STOP_FRACTION * self._settings.drain_s,
            decode_cpu_s=self._settings.decode_cpu_s,
        )
        return JobSupervisor(
            self._store,
            caches,
            budget,
            image_cache_bytes=self._settings.image_cache_bytes,
            forks=self._forks,
            patience=patience,
            step_times=times,
        )

    async def serve(self) -> None:
        """Serve until SIGTERM, SIGINT or, with `exit_with_parent`, the end of the parent.

        A second signal ends the process at once.
        """
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self._stop.set)
        watches = [asyncio.create_task(self._watch_server())]
        if self._forks:
            watches.append(asyncio.create_task(self._forks.warm_up(WARM_UP_S)))
        if self._settings.exit_with_parent:
            watches.append(asyncio.create_task(self._watch_parent()))
        try:
            await self._stop.wait()
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
            for watch in watches:
                watch.cancel()

    async def _watch_server(self) -> None:
        """Open the port again when gRPC has stopped serving. Jobs keep running, and clients connect again."""
        settings = self._settings.model_copy(update={"listen": self._server.address})
        while True:
            log.error("gRPC stopped serving; starting it again", exc_info=await self._server.crashed())
            self._server = Server(settings, self._server.backend, self._version, self._start_time)
            try:
                await self._server.start()
            except SettingsError as error:
                log.critical("cannot serve again: %s", error)
                self._stop.set()
                return

    async def _watch_parent(self) -> None:
        """Stop when the parent has ended. This polls, because the kernel sends its signal when the parent's thread
        ends, even if the parent lives on."""
        while os.getppid() == self._parent:
            await asyncio.sleep(PARENT_POLL_S)
        log.info("the parent is gone")
        self._stop.set()

    async def drain(self) -> None:
        """Refuse new calls, end the streams with an error, let jobs write a checkpoint, then close the store.

        The port stays open until the jobs have ended: health says NOT_SERVING, and a new call gets the reason and the
        time after which it may be repeated.
        """
        log.info("draining for up to %g seconds", self._settings.drain_s)
        try:
            async with awake_time.timeout(self._settings.drain_s):
                await self._server.begin_drain()
                await asyncio.gather(self._jobs.drain(), self._server.until_quiet())
        except TimeoutError:
            log.warning("not everything ended in time; jobs continue from their newest checkpoint at the next start")
        await self._server.stop(LAST_ANSWERS_S)
        await self._close_workers()
        await self._store.close()
        log.info("drained")

    async def _close_workers(self) -> None:
        """End the processes that answer calls. The kernel kills a process that does not end in time together with the
        server."""
        closing = {
            asyncio.create_task(self._selector.close(), name="selector"),
            asyncio.create_task(self._embedder.close(), name="embedder"),
            asyncio.create_task(self._previewer.close(), name="previewer"),
        }
        if self._step_timer:
            closing.add(asyncio.create_task(self._step_timer.close(), name="step timer"))
        if self._forks:
            closing.add(asyncio.create_task(self._forks.close(), name="fork server"))
        with suppress(TimeoutError):
            async with awake_time.timeout(CLOSE_S):
                await asyncio.wait(closing)
        for task in closing:
            if not task.done():
                log.warning("the %s did not end within %g seconds", task.get_name(), CLOSE_S)
                task.cancel()
            elif not task.cancelled() and (error := task.exception()):
                log.error("the %s could not be ended", task.get_name(), exc_info=error)
        await asyncio.wait(closing, timeout=LAST_ANSWERS_S)
