"""Which checkpoints of a job are kept, and from which one it goes on."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from manyview_server.store.jobs import checkpoints
from manyview_server.store.jobs.checkpoints import CheckpointCorrupt
from manyview_server.store.records import Checkpoint

KEEP_NEWEST = 3
KEEP_ALTOGETHER = 16


def superfluous(newest_first: Sequence[Checkpoint]) -> list[Checkpoint]:
    """The checkpoints that need not be kept: all but the newest three and the newest of those that answers named."""
    pinned = [checkpoint for checkpoint in newest_first[KEEP_NEWEST:] if checkpoint.pinned]
    kept = {c.step for c in (*newest_first[:KEEP_NEWEST], *pinned[: KEEP_ALTOGETHER - KEEP_NEWEST])}
    return [checkpoint for checkpoint in newest_first if checkpoint.step not in kept]


async def newest_good(newest_first: Iterable[Checkpoint]) -> tuple[Checkpoint | None, list[Checkpoint]]:
    """The first checkpoint whose files are what its manifest says, and the corrupt ones before it."""
    corrupt = []
    for checkpoint in newest_first:
        try:
            await asyncio.to_thread(checkpoints.verify, Path(checkpoint.directory))
        except CheckpointCorrupt:
            corrupt.append(checkpoint)
        else:
            return checkpoint, corrupt
    return None, corrupt


def remove_unlisted(directory: Path, listed: Iterable[Checkpoint]) -> None:
    """Remove what lies among a job's checkpoints and is none. Only while no trainer of the job is alive."""
    names = {Path(checkpoint.directory).name for checkpoint in listed}
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.name not in names and (
            checkpoints.parse_name(path) or path.name.startswith(checkpoints.TEMPORARY_PREFIX)
        ):
            shutil.rmtree(path, ignore_errors=True)
