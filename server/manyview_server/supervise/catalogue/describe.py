"""Describe the torch side: run a short-lived worker that prints the catalogue as one JSON document."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

from manyview_server.supervise.catalogue.catalogue import Catalogue, CatalogueError
from manyview_server.supervise.catalogue.plugin_packages import packages_with_plugins
from manyview_server.supervise.process import WORKER_COMMAND, WorkerProcess, describe_exit
from manyview_server.system import awake_time

log = logging.getLogger(__name__)


async def describe(command: Sequence[str] = WORKER_COMMAND, *, deadline_s: float = 300.0) -> Catalogue:
    """Run the worker and read what it prints. If that fails and there are plugins, run it again without them.

    Raises:
        CatalogueError: it failed or took longer than `deadline_s`; the message ends with the last lines it printed.
    """
    try:
        return await _describe(command, (), deadline_s)
    except CatalogueError as error:
        packages = packages_with_plugins()
        if not packages:
            raise
        catalogue = await _describe(command, ("--without-plugins",), deadline_s)
        log.error("describing the plugins of %s failed, so all plugins are left out: %s", ", ".join(packages), error)
        return dataclasses.replace(catalogue, without_plugins=True)


async def _describe(command: Sequence[str], arguments: Sequence[str], deadline_s: float) -> Catalogue:
    try:
        process = await WorkerProcess.start(
            "describe", num_threads=1, command=command, arguments=arguments, capture_stdout=True
        )
    except OSError as error:
        raise CatalogueError(f"the worker cannot be started: {error}") from error
    try:
        status = await _exit_status(process, deadline_s)
        if status != 0:
            raise CatalogueError(f"describing failed with {describe_exit(status)}:\n{process.stderr_tail.strip()}")
        return Catalogue.parse(process.stdout)
    finally:
        await process.stop()


async def _exit_status(process: WorkerProcess, deadline_s: float) -> int:
    try:
        async with awake_time.timeout(deadline_s):
            return await process.wait()
    except TimeoutError as error:
        message = f"describing took longer than {deadline_s:g} seconds:\n{process.stderr_tail.strip()}"
        raise CatalogueError(message) from error
