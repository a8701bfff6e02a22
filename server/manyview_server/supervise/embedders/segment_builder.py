"""Images of a data set through the embedder: over its deaths, and around the images that kill it.

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

import numpy as np
import numpy.typing as npt

from manyview_server.errors import FailedPrecondition, ResourceExhausted, ServiceError, Unavailable
from manyview_server.link.decode_notes import CRASHED, OUT_OF_MEMORY, QUARANTINE, TOO_SLOW
from manyview_server.messages.embedding import EmbedDone, EmbedRecipe, ModelKey
from manyview_server.store.embeddings.tables import RowError, Rows
from manyview_server.store.store import Store
from manyview_server.supervise.embedders.embedder import EmbedderSupervisor

log = logging.getLogger(__name__)

CHUNK_IMAGES = 32
"""Of one request; all requests for a segment are on their way at once."""
MAX_FAILURES = 8
"""Of the embedder, for one chunk, before the caller is told."""
NOT_OF_THE_IMAGE = {"NON_FINITE", OUT_OF_MEMORY}
"""Reasons for a row without an embedding that say nothing about the image."""

Quarantined = Mapping[str, Sequence[int]]
"""Images that must not be decoded, by reason."""
Images = npt.NDArray[np.void]
"""(n,) of `store.shards.SNAPSHOT_DTYPE`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """The embeddings that a table holds: those of one output of one model."""

    model: ModelKey
    num_features: int
    owner: str
    """The uid of the job whose checkpoint it is, or "backbone"."""
    identity: tuple[str, ...]
    """Everything else that decides what a row is, such as versions. Another identity is another table."""

    @property
    def digest(self) -> str:
        """A hash of everything that decides what a row is. It names the table's directory."""
        model = self.model
        named = [model.name, Path(model.checkpoint_dir).name, model.backbone, model.weights_file, model.output]
        text = json.dumps([*named, self.num_features, *self.identity])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedImages:
    """Rows (n, D), NaN where `errors` says why."""

    rows: Rows
    errors: tuple[RowError, ...]


class StoredEmbedder:
    """Embeds images of one data set with one model."""

    def __init__(self, store: Store, embedder: EmbedderSupervisor, spec: TableSpec, dataset_uid: str) -> None:
        self._store = store
        self._embedder = embedder
        self._spec = spec
        self._dataset_uid = dataset_uid

    async def rows(self, images: Images, count: Callable[[int], None]) -> EmbeddedImages:
        """A row for each image; `count` is told of rows as they come. What does not decode is noted as unreadable.

        Raises:
            ServiceError: what the embedder says of the model; UNAVAILABLE where it keeps dying, or DRAINING.
        """
        unreadable_ids = self._store.datasets.unreadable_ids
        quarantined = {reason: await unreadable_ids(self._dataset_uid, reason) for reason in QUARANTINE}
        starts = range(0, len(images), CHUNK_IMAGES)
        parts = [images[start : start + CHUNK_IMAGES] for start in starts]
        chunks = [asyncio.create_task(self._chunk(part, quarantined, count)) for part in parts]
        try:
            made = await asyncio.gather(*chunks)
        finally:
            for chunk in chunks:
                chunk.cancel()
            await asyncio.gather(*chunks, return_exceptions=True)
        found = await asyncio.to_thread(_joined, made)
        for error in found.errors:
            if error.reason not in NOT_OF_THE_IMAGE:
                told = (int(images["image_id"][error.row]), error.reason, error.message)
                await self._store.datasets.mark_unreadable(self._dataset_uid, *told)
        return found

    async def _chunk(self, images: Images, quarantined: Quarantined, count: Callable[[int], None]) -> EmbeddedImages:
        try:
            done = await self._embed(images, quarantined)
        except FailedPrecondition as error:
            if error.reason != "EMBED_REQUEST_REFUSED":
                raise
            return await self._without_the_culprit(images, quarantined, count)
        count(len(images))
        rows = np.frombuffer(done.blobs[0], "<f4").reshape(done.shape)
        if rows.shape != (len(images), self._spec.num_features):
            raise ServiceError("INTERNAL", f"the embedder gave rows {rows.shape}")
        errors = tuple(RowError(row=e.row, reason=e.reason, message=e.message) for e in done.errors)
        return EmbeddedImages(rows=rows.astype(np.float32), errors=errors)

    async def _without_the_culprit(
        self, images: Images, quarantined: Quarantined, count: Callable[[int], None]
    ) -> EmbeddedImages:
        """The embedder died of these images twice: halve them, until the one that does it is known."""
        if len(images) == 1:
            culprit = f"{int(images['image_id'][0]):016x}"
            log.error("an image kills the decoder", extra={"dataset": self._dataset_uid, "image": culprit})
            count(1)
            row = np.full((1, self._spec.num_features), np.nan, np.float32)
            return EmbeddedImages(rows=row, errors=(RowError(row=0, reason=CRASHED, message=QUARANTINE[CRASHED]),))
        half = len(images) // 2
        parts = [await self._chunk(part, quarantined, count) for part in (images[:half], images[half:])]
        return _joined(parts)

    async def _embed(self, images: Images, quarantined: Quarantined) -> EmbedDone:
        """One answer of the embedder; where it died or is full, it is asked again."""
        for failures_left in reversed(range(MAX_FAILURES)):
            try:
                return await self._embedder.embed(
                    EmbedRecipe(model=self._spec.model),
                    (images.tobytes(),),
                    dataset_dir=str(self._store.datasets.directory(self._dataset_uid)),
                    quarantined=quarantined[CRASHED],
                    too_slow=quarantined[TOO_SLOW],
                )
            except (Unavailable, ResourceExhausted) as error:
                if not failures_left or not error.retry_after_s or error.reason == "DRAINING":
                    raise
                await asyncio.sleep(error.retry_after_s)
        raise AssertionError("the last failure is raised")


def _joined(parts: Sequence[EmbeddedImages]) -> EmbeddedImages:
    errors: list[RowError] = []
    start = 0
    for part in parts:
        errors += [replace(error, row=error.row + start) for error in part.errors]
        start += len(part.rows)
    return EmbeddedImages(rows=np.concatenate([part.rows for part in parts]), errors=tuple(errors))
