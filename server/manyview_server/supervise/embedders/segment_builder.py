"""Embed a segment of a data set. Deaths of the embedder are survived, and images that kill it are left out.

Shapes: n images, D features.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manyview_server import embedding_rows
from manyview_server.errors import FailedPrecondition, ResourceExhausted, ServiceError, Unavailable
from manyview_server.link.decode_notes import CRASHED, OUT_OF_MEMORY, QUARANTINE, TOO_SLOW
from manyview_server.messages.embedding import EmbedDone, EmbedRecipe, ModelKey, RowFailed
from manyview_server.store.embeddings.tables import RowError, Rows
from manyview_server.store.store import Store
from manyview_server.supervise.embedders.embedder import EmbedderSupervisor

log = logging.getLogger(__name__)

CHUNK_IMAGES = 32
"""The images of one request. All requests for a segment are sent at once."""
MAX_ATTEMPTS = 8
"""The most attempts at one chunk. The caller gets the error of the last one."""
INNOCENT_REASONS = {"NON_FINITE", embedding_rows.FLOAT16_OVERFLOW[0], OUT_OF_MEMORY}
"""Reasons for a row without an embedding that say nothing about the image."""

Quarantined = Mapping[str, Sequence[int]]
"""The ids of images that must not be decoded, by the reason."""
Images = npt.NDArray[np.void]
"""(n,) of `store.images.shards.SNAPSHOT_DTYPE`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """The embeddings that a table holds: those of one output of one model."""

    model: ModelKey
    num_features: int
    owner: str
    """The uid of the job whose checkpoint it is, or "backbone"."""
    identity: tuple[str, ...]
    """Everything else that decides what a row is, such as versions. Another identity is another table."""
    data_type: str = "float32"
    """The number format of the rows: float32 or float16."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The number format of the rows, as numpy has it."""
        return np.dtype(embedding_rows.DTYPES[self.data_type])

    @property
    def digest(self) -> str:
        """A hash of everything that decides what a row is. It names the table's directory."""
        model = self.model
        named = [model.name, Path(model.checkpoint_dir).name, model.backbone, model.weights_file, model.output]
        # Older servers had float32 alone, and the names of their tables stay the same.
        more = [] if self.data_type == "float32" else [self.data_type]
        text = json.dumps([*named, self.num_features, *self.identity, *more])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedImages:
    """Rows (n, D), NaN where `errors` says why."""

    rows: Rows
    errors: tuple[RowError, ...]


class SegmentBuilder:
    """Embeds images of one data set with one model."""

    def __init__(self, store: Store, embedder: EmbedderSupervisor, spec: TableSpec, dataset_uid: str) -> None:
        self._store = store
        self._embedder = embedder
        self._spec = spec
        self._dataset_uid = dataset_uid

    @property
    def is_starting(self) -> bool:
        """Is the embedding process starting right now?"""
        return self._embedder.is_starting

    async def build(self, images: Images, first: int, on_rows: Callable[[int], None]) -> EmbeddedImages:
        """Embed images, of which the first one is at position `first`. `on_rows` gets the numbers of rows that come.
        Images that cannot be decoded are listed as unreadable.

        Raises:
            ServiceError: the error that the embedder answers about the model; UNAVAILABLE if it keeps dying, or
                DRAINING.
        """
        places = (first, first + len(images))
        unreadable_ids = self._store.datasets.unreadable_ids
        quarantined = {reason: await unreadable_ids(self._dataset_uid, reason, *places) for reason in QUARANTINE}
        starts = range(0, len(images), CHUNK_IMAGES)
        parts = [images[start : start + CHUNK_IMAGES] for start in starts]
        chunks = [asyncio.create_task(self._chunk(part, quarantined, on_rows)) for part in parts]
        try:
            embedded = await asyncio.gather(*chunks)
        finally:
            for chunk in chunks:
                chunk.cancel()
            await asyncio.gather(*chunks, return_exceptions=True)
        found = await asyncio.to_thread(_joined, embedded)
        for error in found.errors:
            if error.reason not in INNOCENT_REASONS:
                image_id = int(images["image_id"][error.row])
                await self._store.datasets.mark_unreadable(self._dataset_uid, image_id, error.reason, error.message)
        return found

    async def _chunk(self, images: Images, quarantined: Quarantined, on_rows: Callable[[int], None]) -> EmbeddedImages:
        try:
            done = await self._embed(images, quarantined)
        except FailedPrecondition as error:
            if error.reason != "EMBED_REQUEST_REFUSED":
                raise
            return await self._without_culprit(images, quarantined, on_rows)
        on_rows(len(images))
        rows = np.frombuffer(done.blobs[0], self._spec.dtype).reshape(done.shape)
        if rows.shape != (len(images), self._spec.num_features):
            raise ServiceError("INTERNAL", f"the embedder returned an array of shape {rows.shape}")
        errors = tuple(_row_error(error) for error in done.errors)
        return EmbeddedImages(rows=rows.astype(np.float32), errors=errors)

    async def _without_culprit(
        self, images: Images, quarantined: Quarantined, on_rows: Callable[[int], None]
    ) -> EmbeddedImages:
        """Embed images of which the embedder died twice: halve them until the culprit is known."""
        if len(images) == 1:
            culprit = f"{int(images['image_id'][0]):016x}"
            log.error("an image kills the decoder", extra={"dataset": self._dataset_uid, "image": culprit})
            on_rows(1)
            row = np.full((1, self._spec.num_features), np.nan, np.float32)
            return EmbeddedImages(rows=row, errors=(RowError(row=0, reason=CRASHED, message=QUARANTINE[CRASHED]),))
        half = len(images) // 2
        parts = [await self._chunk(part, quarantined, on_rows) for part in (images[:half], images[half:])]
        return _joined(parts)

    async def _embed(self, images: Images, quarantined: Quarantined) -> EmbedDone:
        """Return an answer of the embedder. Ask again if it died or its queue is full."""
        for attempts_left in reversed(range(MAX_ATTEMPTS)):
            try:
                return await self._embedder.embed(
                    EmbedRecipe(model=self._spec.model, data_type=self._spec.data_type),
                    (images.tobytes(),),
                    dataset_dir=str(self._store.datasets.directory(self._dataset_uid)),
                    quarantined=quarantined[CRASHED],
                    too_slow=quarantined[TOO_SLOW],
                )
            except (Unavailable, ResourceExhausted) as error:
                if not attempts_left or not error.retry_after_s or error.reason == "DRAINING":
                    raise
                await asyncio.sleep(error.retry_after_s)
        raise AssertionError("the last failure is raised")


def _row_error(error: RowFailed) -> RowError:
    reason, message = error.reason, error.message
    if reason == embedding_rows.FLOAT16_OVERFLOW[0]:
        message = "a value is too large for float16, in which the server keeps embeddings (embedding_table_type)"
    return RowError(row=error.row, reason=reason, message=message)


def _joined(parts: Sequence[EmbeddedImages]) -> EmbeddedImages:
    errors: list[RowError] = []
    start = 0
    for part in parts:
        errors += [replace(error, row=error.row + start) for error in part.errors]
        start += len(part.rows)
    return EmbeddedImages(rows=np.concatenate([part.rows for part in parts]), errors=tuple(errors))
