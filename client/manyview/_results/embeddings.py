"""Embeddings of images that are sent: rows in the order of the images, all from one checkpoint, even if the connection
breaks.

Shapes: N images, T patches, D features; `array` is (N, D), or (N, T, D) for tokens of patches.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from manyview import _convert
from manyview._errors import Internal
from manyview._progress.words import number_of
from manyview._transport.backoff import Backoff
from manyview._transport.resume import resumed
from manyview._transport.rpcs import Rpcs
from manyview._types.images import ImageError
from manyview._types.server import EmbedTiming, Limits
from manyview._types.uploads import SkippedFiles
from manyview._uploads.encoded_image import EncodedImage
from manyview.v1 import embed_service_pb2 as pb
from manyview.v1 import types_pb2

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BATCH_BYTES = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Embeddings, one row for each image in `array`, which is read-only: (N, D), or (N, T, D) for tokens of patches.

    The row of a refused image is NaN, and `errors` says why, by row. `checkpoint` names the exact weights. `start` is
    the number of the first row among all images. `variance_kept` is the share of the variance that principal components
    kept, if there are any. `skipped` counts the files of a folder that were passed over.
    """

    array: NDArray[np.float32 | np.float16] = field(repr=False)
    checkpoint: str
    keys: tuple[str, ...] = field(repr=False)
    labels: tuple[str, ...] = field(repr=False)
    errors: dict[int, ImageError] = field(default_factory=dict)
    timing: EmbedTiming = field(default_factory=EmbedTiming)
    start: int = 0
    variance_kept: float | None = None
    skipped: tuple[SkippedFiles, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        errors = f", {number_of(len(self.errors), 'error')}" if self.errors else ""
        return f"<manyview.Embeddings {self.array.shape} {self.array.dtype}, {self.checkpoint}{errors}>"

    def std(self) -> float:
        """Return the spread of the embeddings: the (unbiased) standard deviation of each feature of the rows scaled to
        length 1, averaged over the features. It is about 1/sqrt(D) for a healthy model and near 0 for a collapsed one
        (SimSiam, arXiv 2011.10566, section 4.1). A job logs the same number for views as `representation_std`.

        Refused images are left out. The result is 0 for one row and NaN for no rows.
        """
        import numpy as np

        rows = self._whole_rows()
        if len(rows) < 2:
            return 0.0 if len(rows) else math.nan
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return float(np.std(rows / np.maximum(lengths, 1e-12), axis=0, ddof=1).mean())

    def effective_rank(self) -> float:
        """Return the number of dimensions that the embeddings fill, from 1 to min(N, D): e to the entropy of their
        singular values, scaled to sum 1 (RankMe, arXiv 2210.02885). It shows dead dimensions, which `std` does not. Use
        several times D images, because the result is never above N.

        Refused images are left out. The result is 0 for rows of zeros and NaN for no rows.
        """
        import numpy as np

        rows = self._whole_rows()
        if len(rows) == 0:
            return math.nan
        # The eigenvalues of the smaller product are the squares of the singular values, without a copy of N rows.
        products = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
        singular = np.sqrt(np.maximum(np.linalg.eigvalsh(products), 0))
        if singular.sum() == 0:
            return 0.0
        shares = singular[singular > 0] / singular.sum()
        return float(np.exp(-(shares * np.log(shares)).sum()))

    def _whole_rows(self) -> NDArray[np.float64]:
        import numpy as np

        rows = self.array.reshape(-1, self.array.shape[-1])  # a token counts as a row
        return rows[~np.isnan(rows).any(axis=1)].astype(np.float64)


def joined(chunks: Sequence[Embeddings]) -> Embeddings:
    """Join chunks. Raises ValueError if there are no chunks."""
    import numpy as np

    if not chunks:
        raise ValueError("there are no images to embed")
    array = np.concatenate([chunk.array for chunk in chunks]) if len(chunks) > 1 else chunks[0].array
    array.flags.writeable = False
    return Embeddings(
        array=array,
        checkpoint=chunks[-1].checkpoint,
        variance_kept=chunks[-1].variance_kept,
        keys=tuple(key for chunk in chunks for key in chunk.keys),
        labels=tuple(label for chunk in chunks for label in chunk.labels),
        errors={chunk.start + row: error for chunk in chunks for row, error in chunk.errors.items()},
        timing=EmbedTiming(
            queue_ms=sum(chunk.timing.queue_ms for chunk in chunks),
            decode_ms=sum(chunk.timing.decode_ms for chunk in chunks),
            forward_ms=sum(chunk.timing.forward_ms for chunk in chunks),
        ),
    )


def batches(images: Iterator[EncodedImage], batch_size: int, limits: Limits) -> Iterator[list[EncodedImage]]:
    """Group images into batches of at most `batch_size` images that fit into one message."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    # 0 means that the server has no limit.
    most = min(batch_size, limits.max_batch_images) if limits.max_batch_images else batch_size
    batch: list[EncodedImage] = []
    num_bytes = 0
    for image in images:
        if batch and (len(batch) >= most or num_bytes + len(image.data) > _BATCH_BYTES):
            yield batch
            batch, num_bytes = [], 0
        batch.append(image)
        num_bytes += len(image.data)
    if batch:
        yield batch


class EmbedRun:
    """Embeds batches: a single one by a unary call, more by a stream."""

    def __init__(self, rpcs: Rpcs, model: str, how: pb.EmbedOptions) -> None:
        self._rpcs = rpcs
        self._model = model
        self._options = how
        self._checkpoint = ""
        self._start = 0
        self._unanswered: deque[list[EncodedImage]] = deque()
        deadlines = rpcs.channel.deadlines
        self._backoff = Backoff(give_up_after_s=deadlines.reconnect_s, longest_attempt_s=deadlines.longest_s)

    def run(self, made: Iterator[list[EncodedImage]]) -> Iterator[Embeddings]:
        """Yield a chunk for each batch, in their order. When a stream breaks, batches without an answer are sent again,
        to the same checkpoint."""
        self._unanswered.extend(batch for batch in (next(made, None), next(made, None)) if batch is not None)
        if len(self._unanswered) == 1:
            yield self._embed_one(self._unanswered.popleft())
            return
        if self._unanswered:
            yield from resumed(lambda: self._session(made), self._backoff)

    def _embed_one(self, batch: list[EncodedImage]) -> Embeddings:
        request = pb.EmbedRequest(model=self._model, images=_images(batch), options=self._options)
        reply = self._rpcs.embed(request)
        self._checkpoint = reply.checkpoint
        return self._chunk(batch, reply)

    def _session(self, made: Iterator[list[EncodedImage]]) -> Iterator[Embeddings]:
        """Use one stream. Its batches are numbered from 1. Those that an earlier stream left unanswered come first."""
        with self._rpcs.embed_stream() as stream:
            header = pb.EmbedHeader(model=self._checkpoint or self._model, options=self._options)
            stream.send(pb.EmbedStreamRequest(header=header))
            opened = stream.expect("opened").opened
            self._checkpoint = opened.checkpoint
            most = max(1, opened.max_unanswered_batches)
            num_sent = num_answered = 0
            while True:
                while (
                    num_sent - num_answered < most and (batch := self._next(num_sent - num_answered, made)) is not None
                ):
                    num_sent += 1
                    stream.send(
                        pb.EmbedStreamRequest(batch=types_pb2.ImageBatch(number=num_sent, images=_images(batch)))
                    )
                if not self._unanswered:
                    stream.finish_sending()
                    return
                result = stream.expect("result").result
                num_answered += 1
                if result.number != num_answered:
                    message = f"result {result.number} came, but result {num_answered} was expected"
                    raise Internal(message, reason="PROTOCOL")
                self._backoff.succeeded()
                chunk = self._chunk(self._unanswered[0], result)
                self._unanswered.popleft()
                yield chunk

    def _next(self, num_in_flight: int, made: Iterator[list[EncodedImage]]) -> list[EncodedImage] | None:
        """Return the next batch to send: one that an earlier stream left unanswered, else a new one."""
        if num_in_flight < len(self._unanswered):
            return self._unanswered[num_in_flight]
        batch = next(made, None)
        if batch is not None:
            self._unanswered.append(batch)
        return batch

    def _chunk(self, batch: list[EncodedImage], reply: Any) -> Embeddings:
        array = _convert.tensor(reply.embeddings)
        if len(array) != len(batch):
            raise Internal(
                f"{number_of(len(array), 'row')} came for {number_of(len(batch), 'image')}", reason="PROTOCOL"
            )
        errors = {error.row: _convert.image_error(error.error) for error in reply.errors}
        errors |= {row: image.error for row, image in enumerate(batch) if image.error is not None}
        chunk = Embeddings(
            array=array,
            checkpoint=self._checkpoint,
            keys=tuple(image.key for image in batch),
            labels=tuple(image.label for image in batch),
            errors=errors,
            timing=_convert.timing(reply.timing),
            start=self._start,
        )
        self._start += len(batch)
        return chunk


def _images(batch: list[EncodedImage]) -> list[types_pb2.Image]:
    """Return the messages of a batch. An image that is too large is sent as an empty one, which keeps its row."""
    return [types_pb2.Image(data=image.data) for image in batch]
