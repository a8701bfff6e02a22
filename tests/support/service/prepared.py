"""A data directory with images and a queued job in it, made without a server: the next one that starts there trains."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from manyview_server.store.event_payloads import Log
from manyview_server.store.records import CheckedImage, NewEvent
from manyview_server.store.store import Store

CHUNK_EVENTS = 5_000


def queue_job(
    data_dir: Path, photos: Sequence[Path], job_id: str, config: Mapping[str, Any], *, num_old_events: int = 0
) -> None:
    """The photos as the data set "training", and a job over it whose log has `num_old_events` lines already."""

    async def make() -> None:
        store = Store.open(data_dir)
        await store.datasets.create("training")
        session = await store.uploads.open("training", "prepared")
        await session.append(1, [_checked(path) for path in photos])
        await session.finish(len(photos))
        await store.jobs.create(job_id, "training", str(config["method"]), dict(config), "prepared")
        for first in range(0, num_old_events, CHUNK_EVENTS):
            numbers = range(first, min(first + CHUNK_EVENTS, num_old_events))
            await store.events.append(job_id, [_line(number) for number in numbers])
        await store.close()

    asyncio.run(make())


def _line(number: int) -> NewEvent:
    """The size of an event with a dozen scalars."""
    return NewEvent(payload=Log(level="info", text=f"old event {number} ".ljust(300, ".")))


def _checked(path: Path) -> CheckedImage:
    data = path.read_bytes()
    with Image.open(path) as image:
        width, height = image.size
    sha256 = hashlib.sha256(data).digest()
    return CheckedImage(
        data=data, key=path.name, label=path.parent.name, sha256=sha256, extension="jpg", width=width, height=height
    )
