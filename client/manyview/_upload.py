"""Uploading images: at most a window of them unacknowledged, and none lost or doubled when the connection or a side
dies. `Upload` drives a `Window` over as many streams as it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice

from manyview import _convert
from manyview._backoff import Backoff
from manyview._errors import (
    DeadlineExceeded,
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
from manyview._window import Window, chain
from manyview.v1 import dataset_service_pb2 as pb

# Large enough to make the cost per message small, small enough for a smooth window.
_BATCH_BYTES = 1_500_000
_BATCH_IMAGES = 256
_LINGER_S = 0.5

UploadStream = Stream[pb.UploadImagesRequest, pb.UploadImagesResponse]


def batches(
    images: Iterator[EncodedImage], limits: Limits, clock: Callable[[], float] = time.monotonic
) -> Iterator[list[EncodedImage]]:
    """Group images so that a message stays small; a large image goes alone. From a live source that gives few images a
    second, those go that are there: once the next one comes, none has waited longer than half a second."""
    most = min(_BATCH_IMAGES, limits.max_batch_images or _BATCH_IMAGES)
    batch: list[EncodedImage] = []
    num_bytes, since = 0, clock()
    for image in images:
        if batch and num_bytes + len(image.data) > _BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
        if not batch:
            since = clock()
        batch.append(image)
        num_bytes += len(image.data)
        if len(batch) == most or clock() - since > _LINGER_S:
            yield batch
            batch, num_bytes = [], 0
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
                before, status = status, self._recheck(error)
                if isinstance(error, UploadChanged) and _number(before) == _number(status):
                    raise
                if status is not None and self._window.is_fresh:
                    self._skip(images, status)

    def _recheck(self, error: ManyviewError) -> pb.Upload | None:
        """Wait after a broken stream, and ask where the upload stands, until the server is there to tell. The stream
        that broke may still have committed a batch after it was last asked, for which the server takes the header's
        digest as a change."""
        if not (is_transient(error) or isinstance(error, UploadChanged) or error.reason == "SEQUENCE_GAP"):
            raise error
        self._window.rewind()
        while True:
            self._backoff.wait(error)
            try:
                return self._status()
            except ManyviewError as failure:
                # A deadline that passes without an answer is what a dead connection looks like until it is noticed.
                if not (is_transient(failure) or isinstance(failure, DeadlineExceeded)):
                    raise
                error = failure

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
        digest = self._window.last_digest
        for image in islice(images, status.num_images - self._num_images):
            digest = chain(digest, [image])
            self._num_images += 1
            self._on_progress(1)
        if self._num_images < status.num_images or digest != status.digest:
            raise self._changed(f"the first {status.num_images} images differ")
        self._resumed_from = self._num_images
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


def _number(status: pb.Upload | None) -> int:
    return 0 if status is None else status.committed_number


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
