"""Uploading images: at most a window of them unacknowledged, and none lost or doubled when the connection or a side
dies.

`Window` is the state machine, without any I/O: which batches wait, which are on their way, and the chained digest that
proves on resuming that the images are still those that were acknowledged. `Upload` drives it over streams.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from manyview import _convert
from manyview._backoff import Backoff
from manyview._errors import (
    Aborted,
    DataLoss,
    Internal,
    ManyviewError,
    NotFound,
    Unavailable,
    UploadChanged,
    from_stream_error,
    is_transient,
)
from manyview._images import EncodedImage, ImageSource
from manyview._rpcs import Rpcs
from manyview._stream import Stream
from manyview._types import LabelConflict, Limits, RejectedImage, UploadReport
from manyview.v1 import dataset_service_pb2 as pb
from manyview.v1 import types_pb2

# Large enough to make the cost per message small, small enough for a smooth window.
_BATCH_BYTES = 1_500_000
_BATCH_IMAGES = 256

UploadStream = Stream[pb.UploadImagesRequest, pb.UploadImagesResponse]


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


def batches(images: Iterator[EncodedImage], limits: Limits) -> Iterator[list[EncodedImage]]:
    """Group images so that a message stays small; a large image goes alone. Pulls one image ahead."""
    most = min(_BATCH_IMAGES, limits.max_batch_images or _BATCH_IMAGES)
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


class Upload:
    """One run of an upload: resumes what an earlier run left, sends the rest, and says what became of each image."""

    def __init__(
        self,
        rpcs: Rpcs,
        source: ImageSource,
        dataset: str,
        upload_id: str,
        limits: Limits,
        on_progress: Callable[[int], None],
    ) -> None:
        self._rpcs = rpcs
        self._source = source
        self._dataset = dataset
        self._upload_id = upload_id
        self._limits = limits
        self._on_progress = on_progress
        self.was_finished = False
        self._window = Window()
        self._num_images = 0
        self._resumed_from = 0
        self._unsent: list[RejectedImage] = []
        self._rejected: list[RejectedImage] = []
        self._conflicts: list[LabelConflict] = []
        self._backoff = Backoff(give_up_after_s=rpcs.channel.deadlines.reconnect_s)

    def run(self) -> UploadReport:
        """Upload everything. Raises UploadChanged when an earlier run under this id sent other images, ValueError
        when there are no images at all."""
        images = self._sendable(iter(self._source))
        status = self._status()
        if status is not None:
            self.was_finished = status.finished
            self._skip(images, status)
            if status.finished:
                if next(images, None) is not None:
                    raise self._changed("it was finished with fewer images")
                return self._report(status)
        made = batches(images, self._limits)
        while True:
            try:
                return self._report(self._session(made, status))
            except ManyviewError as error:
                if not (is_transient(error) or error.reason == "SEQUENCE_GAP"):
                    raise
                self._backoff.wait(error)
                self._window.rewind()
                status = self._status()

    def _sendable(self, images: Iterator[EncodedImage]) -> Iterator[EncodedImage]:
        """Images that fit a message; the others are set aside with their reason."""
        for image in images:
            if image.error is not None:
                self._unsent.append(RejectedImage(key=image.key, error=image.error))
                self._on_progress(1)
            else:
                yield image

    def _status(self) -> pb.Upload | None:
        try:
            reply = self._rpcs.get_upload(pb.GetUploadRequest(dataset=self._dataset, upload_id=self._upload_id))
        except NotFound:
            return None
        return reply.upload

    def _skip(self, images: Iterator[EncodedImage], status: pb.Upload) -> None:
        """Pass over what an earlier run got acknowledged; hashing it proves that it is the same."""
        digest, count = b"", 0
        for image in islice(images, status.num_images):
            digest, count = chain(digest, [image]), count + 1
            self._on_progress(1)
        if count < status.num_images or digest != status.digest:
            raise self._changed(f"the first {status.num_images} images differ")
        self._num_images = self._resumed_from = count
        self._window = Window(committed=status.committed_number, digest=digest)

    def _changed(self, how: str) -> UploadChanged:
        text = (
            f"upload {self._upload_id} was begun with other images ({how}); pass another upload_id to begin a new one"
        )
        return UploadChanged(text, reason="UPLOAD_CHANGED")

    def _session(self, made: Iterator[list[EncodedImage]], status: pb.Upload | None) -> pb.Upload:
        """One stream, from its header to `finished`."""
        if status is not None and status.finished:
            return status
        committed = status.committed_number if status is not None else 0
        with self._rpcs.upload_images() as stream:
            digest = self._window.digest_at(committed)
            header = pb.UploadHeader(dataset=self._dataset, upload_id=self._upload_id, resume_digest=digest)
            stream.send(pb.UploadImagesRequest(header=header))
            opened = _expect(stream, "opened").opened
            self._window.limit(opened.max_unacked_batches, opened.max_unacked_bytes)
            self._send_all(stream, made)
            if self._num_images == 0 and not self._unsent:
                raise ValueError("there are no images to upload")
            stream.send(pb.UploadImagesRequest(finish=pb.UploadFinish(num_images=self._num_images)))
            stream.finish_sending()
            return _expect(stream, "finished").finished.upload

    def _send_all(self, stream: UploadStream, made: Iterator[list[EncodedImage]]) -> None:
        """Send while the window has room, else wait for an ack. Images are pulled in the caller's own thread."""
        exhausted = False
        while True:
            while not exhausted and self._window.wants_more:
                batch = next(made, None)
                exhausted = batch is None
                if batch is not None:
                    self._num_images += len(batch)
                    self._window.add(batch)
                self._send_waiting(stream)
                while stream.ready:
                    self._receive_ack(stream)
            self._send_waiting(stream)
            if exhausted and self._window.is_empty:
                return
            self._receive_ack(stream)

    def _send_waiting(self, stream: UploadStream) -> None:
        while (batch := self._window.take()) is not None:
            stream.send(batch.message)

    def _receive_ack(self, stream: UploadStream) -> None:
        ack = _expect(stream, "ack").ack
        batch = self._window.ack(ack.number)
        self._backoff.succeeded()
        for key, label, result in zip(batch.keys, batch.labels, ack.results, strict=True):
            if result.outcome == pb.ImageResult.OUTCOME_REJECTED:
                self._rejected.append(RejectedImage(key=key, error=_convert.image_error(result.error)))
            elif result.label_differs:
                self._conflicts.append(
                    LabelConflict(key=key, label=label, first_key=result.first_key, first_label=result.first_label)
                )
        self._on_progress(len(batch.keys))

    def _report(self, upload: pb.Upload) -> UploadReport:
        return UploadReport(
            upload_id=self._upload_id,
            num_sent=upload.num_images,
            num_stored=upload.num_stored,
            num_duplicates=upload.num_duplicates,
            num_rejected=upload.num_rejected + len(self._unsent),
            rejected=(*self._unsent, *self._rejected),
            label_conflicts=tuple(self._conflicts),
            resumed_from=self._resumed_from,
        )


def _expect(stream: UploadStream, kind: str) -> pb.UploadImagesResponse:
    """The next message, which must be of this kind. An error within the stream is raised; an early end can be
    resumed."""
    message = stream.receive()
    if message is None:
        raise Unavailable("the server ended the upload's stream early", reason="STREAM_ENDED")
    received = message.WhichOneof("payload")
    if received == "error":
        raise from_stream_error(message.error)
    if received != kind:
        raise Internal(f"the server sent {received!r} where {kind!r} was due", reason="PROTOCOL")
    return message
