"""Jobs under supervision, watched from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from manyview_server.store.event_payloads import Alert, Rollback, Scalars, StateChange
from manyview_server.store.records import Job
from manyview_server.store.store import Store
from manyview_server.supervise.trainers.attempt import Patience
from manyview_server.supervise.trainers.jobs import JobSupervisor

QUICK = Patience(hello_s=8, silence_s=8, step_s=0.5, stop_s=0.5, exit_s=0.3, restart_s=0.01)
Supervise = Callable[..., Awaitable[JobSupervisor]]


async def create(store: Store, name: str = "job", settings: dict[str, Any] | None = None) -> Job:
    return await store.jobs.create(name, "clothing", "moco", settings or {}, "1")


async def reach(store: Store, name: str, *states: str, timeout_s: float = 20.0) -> Job:
    async with asyncio.timeout(timeout_s):
        while (job := await store.jobs.get(name)).state not in states:
            assert not job.terminal, f"{job.state} {job.failure}"
            await asyncio.sleep(0.01)
    return job


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def history(store: Store, name: str) -> list[tuple[str, str]]:
    """State changes as (to, reason), other events but scalars as (kind, reason or step)."""
    found: list[tuple[str, str]] = []
    for event in await store.events.read(name, 0, 10_000):
        match event.payload:
            case Scalars():
                pass
            case StateChange(to_state=state, reason=reason):
                found.append((state, reason))
            case Alert(reason=reason):
                found.append((event.kind, reason))
            case Rollback(to_step=step):
                found.append((event.kind, str(step)))
            case _:
                found.append((event.kind, str(event.step)))
    return found


async def losses(store: Store, name: str) -> list[int]:
    await store.events.flush(name)
    return [event.step for event in await store.events.scalar_rows(name)]
