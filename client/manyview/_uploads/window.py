"""The upload window as a state machine, without any I/O: which batches wait and which are on their way, and the chained
digest that proves on resuming that the images are still those that were acknowledged."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from manyview._errors import Aborted, DataLoss, Internal
from manyview._uploads.sources import EncodedImage
from manyview.v1 import dataset_service_pb2 as pb
from manyview.v1 import types_pb2


def chain(digest: bytes, images: Sequence[EncodedImage]) -> bytes:
    """The digest after `images`: SHA-256(previous digest + image SHA-256), image by image."""
    for image in images:
        digest = hashlib.sha256(digest + image.sha256).digest()
    return digest


@dataclass(frozen=True)
class Batch:
    """A numbered batch with what its ack will be matched against."""

    number: int
    message: pb.UploadImagesRequest
    keys: tuple[str, ...]
    labels: tuple[str, ...]
    num_bytes: int
    digest: bytes  # after this batch


class Window:
    """What was acknowledged, what is on its way, what waits. Numbers go on from `committed`, the digest from
    `digest`."""

    def __init__(self, *, committed: int = 0, digest: bytes = b"") -> None:
        self._committed = committed
        self._acked_number = committed
        self._acked_digest = digest
        self._last_number = committed
        self._last_digest = digest
        self._unacked: deque[Batch] = deque()
        self._waiting: deque[Batch] = deque()
        self._unacked_bytes = 0
        self._max_batches = 1
        self._max_bytes = 0

    def limit(self, max_batches: int, max_bytes: int) -> None:
        """How much may be unacknowledged, as the server said when the stream opened."""
        self._max_batches = max(1, max_batches)
        self._max_bytes = max_bytes

    @property
    def last_digest(self) -> bytes:
        """The digest after the last batch that was numbered."""
        return self._last_digest

    @property
    def is_fresh(self) -> bool:
        """Whether no batch was numbered yet."""
        return self._last_number == self._committed

    @property
    def wants_more(self) -> bool:
        """Whether another batch should be made: none waits, and there is room for some."""
        full = len(self._unacked) >= self._max_batches or 0 < self._max_bytes <= self._unacked_bytes
        return not self._waiting and not full

    @property
    def is_empty(self) -> bool:
        return not self._unacked and not self._waiting

    def add(self, images: Sequence[EncodedImage]) -> None:
        """Number a batch and let it wait to be taken."""
        self._last_number += 1
        self._last_digest = chain(self._last_digest, images)
        protos = [types_pb2.Image(data=i.data, key=i.key, label=i.label, sha256=i.sha256) for i in images]
        message = pb.UploadImagesRequest(batch=types_pb2.ImageBatch(number=self._last_number, images=protos))
        keys, labels = tuple(i.key for i in images), tuple(i.label for i in images)
        self._waiting.append(Batch(self._last_number, message, keys, labels, message.ByteSize(), self._last_digest))

    def take(self) -> Batch | None:
        """The next batch to send, if it fits; one that is larger than the window goes alone."""
        if not self._waiting:
            return None
        size = self._waiting[0].num_bytes
        fits = len(self._unacked) < self._max_batches and (
            self._max_bytes <= 0 or self._unacked_bytes + size <= self._max_bytes
        )
        if self._unacked and not fits:
            return None
        self._unacked.append(self._waiting.popleft())
        self._unacked_bytes += size
        return self._unacked[-1]

    def ack(self, number: int) -> Batch:
        """The oldest unacknowledged batch, which `number` must be: acks come in order."""
        if not self._unacked or self._unacked[0].number != number:
            expected = self._unacked[0].number if self._unacked else "none"
            raise Internal(
                f"the server acknowledged batch {number}, expected was {expected}", reason="ACK_OUT_OF_ORDER"
            )
        batch = self._unacked.popleft()
        self._unacked_bytes -= batch.num_bytes
        self._acked_number, self._acked_digest = batch.number, batch.digest
        return batch

    def rewind(self) -> None:
        """The stream broke: whatever is unacknowledged waits again, to be sent under the same numbers."""
        self._waiting.extendleft(reversed(self._unacked))
        self._unacked.clear()
        self._unacked_bytes = 0

    def digest_at(self, number: int) -> bytes:
        """The digest after batch `number`, which may be committed though its ack was lost."""
        if number == self._acked_number:
            return self._acked_digest
        for batch in (*self._unacked, *self._waiting):
            if batch.number == number:
                return batch.digest
        if number < self._acked_number:
            lost = f"the server has lost acknowledged batches: it holds {number} of {self._acked_number}"
            raise DataLoss(lost, reason="ACKED_BATCHES_LOST")
        raise Aborted(f"batch {number} came from another client under the same upload_id", reason="UPLOAD_FENCED")
