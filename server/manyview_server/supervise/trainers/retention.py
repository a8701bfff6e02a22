"""Decide which checkpoints of a job are kept, and from which one it resumes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from manyview_server.store.jobs import checkpoints
from manyview_server.store.jobs.checkpoints import CheckpointCorrupt
from manyview_server.store.records import Checkpoint

KEEP_NEWEST = 3
KEEP_AT_MOST = 16


def superfluous(newest_first: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Return the checkpoints that need not be kept: all but the newest ones, and the newest of those that are pinned
    because an answer named them."""
    pinned = [checkpoint for checkpoint in newest_first[KEEP_NEWEST:] if checkpoint.pinned]
    kept = {c.step for c in (*newest_first[:KEEP_NEWEST], *pinned[: KEEP_AT_MOST - KEEP_NEWEST])}
    return [checkpoint for checkpoint in newest_first if checkpoint.step not in kept]


async def newest_good(newest_first: Iterable[Checkpoint]) -> tuple[Checkpoint | None, list[Checkpoint]]:
    """Return the newest checkpoint whose files match its manifest, and the corrupt ones that are newer."""
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
    """Remove checkpoints of a job that are not listed, and unfinished ones. No trainer of the job may be alive."""
    names = {Path(checkpoint.directory).name for checkpoint in listed}
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.name not in names and (
            checkpoints.parse_name(path) or path.name.startswith(checkpoints.TEMPORARY_PREFIX)
        ):
            shutil.rmtree(path, ignore_errors=True)
