"""The embed requests in progress: how far each has come, and its answer.

Shapes: N images of a request, D output width.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from manyview_server import embedding_rows
from manyview_server.link.decode_notes import CRASHED, QUARANTINE, TOO_SLOW
from manyview_server.messages.embedding import EmbedDone, EmbedFailed, EmbedImages, ModelKey, RowFailed
from manyview_server.store.images.shards import SNAPSHOT_DTYPE, ShardReader
from manyview_server.worker.images import image_reader
from manyview_server.worker.images.decoder import DecodeError


@dataclass(eq=False)
class EmbedRequest:
    """A request in progress. Its `num_*` and `is_over` belong to the scheduler, under its lock."""

    message: EmbedImages
    arrived: float = field(default_factory=time.monotonic)
    rows: npt.NDArray[np.float32] | None = None
    """(N, D), NaN for images that are not embedded yet."""
    errors: list[RowFailed] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    """The scheduler's turns of its images, so many images for each."""
    num_taken: int = 0
    """The number of rows that were given to a decoder, in their order."""
    num_done: int = 0
    is_over: bool = False
    """True once it was answered, failed or cancelled. Rows that come later are dropped."""
    first_decode: float = 0.0
    last_decode: float = 0.0
    forward_s: float = 0.0
    batch_images: int = 0

    @property
    def key(self) -> ModelKey:
        """The model that embeds the images."""
        return self.message.recipe.model

    @property
    def is_bulk(self) -> bool:
        """Is it about stored images, and so behind the requests of callers that sent their images?"""
        return bool(self.message.dataset_dir)

    @cached_property
    def num_images(self) -> int:
        return len(self._stored) if self.is_bulk else len(self.message.blobs)

    def take(self) -> int:
        """Return the next row to decode."""
        row = self.num_taken
        if row == 0:
            self.first_decode = time.monotonic()
        self.num_taken += 1
        return row

    def image(self, row: int) -> bytes:
        """Return an image's file. Raises DecodeError if it took too long to decode before, or cannot be read."""
        if row in self.message.too_slow:
            raise DecodeError(TOO_SLOW, QUARANTINE[TOO_SLOW])
        if not self.is_bulk:
            return self.message.blobs[row]
        reader = ShardReader(Path(self.message.dataset_dir))
        try:
            return image_reader.read(reader, self._stored[row], dict.fromkeys(self.message.quarantined, CRASHED))
        finally:
            reader.close()

    @cached_property
    def _stored(self) -> npt.NDArray[np.void]:
        return np.frombuffer(b"".join(self.message.blobs), SNAPSHOT_DTYPE)

    @property
    def has_expired(self) -> bool:
        """Has its time passed?"""
        left = self.message.time_left_s
        return left > 0 and time.monotonic() > self.arrived + left

    def answer(self, token_dim: int = 0) -> EmbedDone:
        """Return the answer. All rows must be done."""
        assert self.rows is not None
        recipe = self.message.recipe
        encoded = embedding_rows.encode(self.rows, unit=recipe.l2_normalize, data_type=recipe.data_type)
        known = {error.row for error in self.errors}
        for row, (reason, text) in encoded.errors.items():
            if row not in known:
                self.errors.append(RowFailed(row=row, reason=reason, message=text))
        return EmbedDone(
            request_id=self.message.request_id,
            shape=(self.rows.shape[0], self.rows.shape[1]),
            token_dim=token_dim,
            errors=tuple(sorted(self.errors, key=lambda error: error.row)),
            queue_ms=1e3 * (self.first_decode - self.arrived),
            decode_ms=1e3 * (self.last_decode - self.first_decode),
            forward_ms=1e3 * self.forward_s,
            batch_images=self.batch_images,
            blobs=(encoded.data,),
        )

    def failed(self, code: str, reason: str, message: str) -> EmbedFailed:
        """Return the answer that the whole request failed."""
        return EmbedFailed(request_id=self.message.request_id, code=code, reason=reason, message=message)


@dataclass(frozen=True, kw_only=True)
class DecodedRow:
    """One image of a request, ready for the network."""

    request: EmbedRequest
    row: int
    pixels: Tensor
    """(3, o, o) uint8."""
