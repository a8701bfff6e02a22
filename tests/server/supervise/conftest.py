"""A store, supervisors of jobs, and the command line of the scripted workers that they start."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from manyview_server.store.records import CheckedImage
from manyview_server.store.store import Store
from manyview_server.supervise.cores import CoreBudget
from manyview_server.supervise.trainers.attempt import Patience
from manyview_server.supervise.trainers.jobs import JobSupervisor
from support.learning.forked import children
from support.service.supervised import QUICK, Supervise
from support.workers import scripted_worker

Command = Callable[..., tuple[str, ...]]


@pytest.fixture
def scripted(tmp_path: Path) -> Command:
    """The command of workers that follow a script: scripted(trainer={"die_at": 2})."""

    def command(**script: Any) -> tuple[str, ...]:
        script.setdefault("once_file", str(tmp_path / "starts"))
        return scripted_worker.command(script)

    return command


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "data", reserve_bytes=0)
    await opened.datasets.create("clothing")
    session = await opened.uploads.open("clothing", "first", b"")
    data = b"an image"
    image = CheckedImage(
        data=data, key="a", label="", sha256=hashlib.sha256(data).digest(), extension="jpg", width=1, height=1
    )
    await session.append(1, [image])
    yield opened
    await opened.close()


@pytest.fixture
async def supervise(store: Store, scripted: Any) -> AsyncIterator[Supervise]:
    running: list[JobSupervisor] = []

    async def start(trainer: Any = "normal", *, devices: int = 1, patience: Patience = QUICK) -> JobSupervisor:
        names = {f"cuda:{i}": 1 << 20 for i in range(devices)}
        supervisor = JobSupervisor(store, names, CoreBudget(2), command=scripted(trainer=trainer), patience=patience)
        running.append(supervisor)
        await supervisor.start()
        return supervisor

    yield start
    for supervisor in running:
        await supervisor.drain()
    assert not children()
