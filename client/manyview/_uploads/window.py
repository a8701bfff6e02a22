"""The window of an upload as a state machine, without any I/O. It knows which batches wait and which are
unacknowledged, and the chained digest, which proves to the server that a resumed upload has the same images."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from manyview._errors import Aborted, DataLoss, Internal
from manyview._uploads.batch_message import batch_pieces
from manyview._uploads.encoded_image import EncodedImage


def chain(digest: bytes, images: Sequence[EncodedImage]) -> bytes:
    """Return the digest after `images`: SHA-256(previous digest + image SHA-256), image by image."""
    for image in images:
        digest = hashlib.sha256(digest + image.sha256).digest()
    return digest


@dataclass(frozen=True)
class OutgoingBatch:
    """A numbered batch, with the keys and labels that its ack refers to."""

    number: int
    pieces: Sequence[bytes]
    """The bytes of an UploadImagesRequest, not joined: only a message that is being sent takes memory of its own."""
    keys: tuple[str, ...]
    labels: tuple[str, ...]
    num_bytes: int
    digest: bytes  # after this batch

    @property
    def message(self) -> bytes:
        """The bytes of an UploadImagesRequest, copied for this call."""
        return b"".join(self.pieces)


class Window:
    """The batches of an upload that are acknowledged, unacknowledged or waiting. Their numbers continue after
    `committed`, and the digest continues `digest`."""

    def __init__(self, *, committed: int = 0, digest: bytes = b"") -> None:
        self._committed = committed
        self._acked_number = committed
        self._acked_digest = digest
        self._last_number = committed
        self._last_digest = digest
        self._unacked: deque[OutgoingBatch] = deque()
        self._waiting: deque[OutgoingBatch] = deque()
        self._unacked_bytes = 0
        self._max_batches = 1
        self._max_bytes = 0

    def limit(self, max_batches: int, max_bytes: int) -> None:
        """Set how much may be unacknowledged. The server says so when a stream opens."""
        self._max_batches = max(1, max_batches)
        self._max_bytes = max_bytes

    @property
    def last_digest(self) -> bytes:
        """The digest after the last batch that was numbered."""
        return self._last_digest

    @property
    def is_fresh(self) -> bool:
        """Has no batch been numbered yet?"""
        return self._last_number == self._committed

    @property
    def wants_more(self) -> bool:
        """Should another batch be added, because none waits and the window has room?"""
        full = len(self._unacked) >= self._max_batches or 0 < self._max_bytes <= self._unacked_bytes
        return not self._waiting and not full

    @property
    def is_empty(self) -> bool:
        return not self._unacked and not self._waiting

    @property
    def owed_bytes(self) -> int:
        """The size of the batch whose ack comes next, or 0 if no ack is due."""
        return next((batch.num_bytes for batch in (*self._unacked, *self._waiting)), 0)

    def add(self, images: Sequence[EncodedImage]) -> None:
        """Number a batch. It waits until it is taken."""
        self._last_number += 1
        self._last_digest = chain(self._last_digest, images)
        pieces = batch_pieces(self._last_number, images)
        keys, labels = tuple(i.key for i in images), tuple(i.label for i in images)
        num_bytes = sum(map(len, pieces))
        self._waiting.append(OutgoingBatch(self._last_number, pieces, keys, labels, num_bytes, self._last_digest))

    def take(self) -> OutgoingBatch | None:
        """Return the next batch to send if it fits, or None. A batch that is larger than the window is sent alone."""
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

    def ack(self, number: int) -> OutgoingBatch:
        """Remove and return the oldest unacknowledged batch. Its number must be `number`, because acks come in
        order."""
        if not self._unacked or self._unacked[0].number != number:
            expected = self._unacked[0].number if self._unacked else "no batch"
            raise Internal(
                f"the server acknowledged batch {number} where {expected} was expected", reason="ACK_OUT_OF_ORDER"
            )
        batch = self._unacked.popleft()
        self._unacked_bytes -= batch.num_bytes
        self._acked_number, self._acked_digest = batch.number, batch.digest
        return batch

    def rewind(self) -> None:
        """Make all unacknowledged batches wait again, because the stream broke. They keep their numbers."""
        self._waiting.extendleft(reversed(self._unacked))
        self._unacked.clear()
        self._unacked_bytes = 0

    def digest_at(self, number: int) -> bytes:
        """Return the digest after batch `number`, which may be committed although its ack was lost."""
        if number == self._acked_number:
            return self._acked_digest
        for batch in (*self._unacked, *self._waiting):
            if batch.number == number:
                return batch.digest
        if number < self._acked_number:
            lost = f"the server has lost acknowledged batches: it has {number} of {self._acked_number}"
            raise DataLoss(lost, reason="ACKED_BATCHES_LOST")
        raise Aborted(f"batch {number} came from another client under the same upload_id", reason="UPLOAD_FENCED")
