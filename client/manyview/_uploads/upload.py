"""Uploads of images. At most a window of them is unacknowledged, and none is lost or stored twice if the connection,
the client or the server dies. `Upload` drives a `Window` over as many streams as it takes.

The caller's thread pulls images from the caller's iterator and reports progress. Another thread sends them, so that
images are sent and acknowledged while the iterator pauses.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from itertools import islice

from manyview._errors import (
    AlreadyExists,
    DeadlineExceeded,
    ManyviewError,
    NotFound,
    UploadChanged,
    is_transient,
    may_reopen,
)
from manyview._progress.report import Report
from manyview._transport.backoff import Backoff
from manyview._transport.deadline import Deadline
from manyview._transport.rpcs import Rpcs
from manyview._transport.stream import Stream
from manyview._types.server import Limits
from manyview._types.uploads import UploadReport
from manyview._uploads.batcher import BATCH_BYTES, Batcher
from manyview._uploads.encoded_image import EncodedImage
from manyview._uploads.handover import Handover
from manyview._uploads.run_report import RunReport
from manyview._uploads.sources import ImageSource
from manyview._uploads.window import Window, chain
from manyview.v1 import dataset_service_pb2 as pb

# The time that the sending thread has to end after the caller's thread has failed.
_JOIN_S = 5.0

UploadStream = Stream[pb.UploadImagesRequest | bytes, pb.UploadImagesResponse]


def upload_source(
    rpcs: Rpcs, source: ImageSource, dataset: str, upload_id: str | None, limits: Limits, report: Report
) -> UploadReport:
    """Upload all images of a source. Without an `upload_id`, files have one that is made from their names, so that a
    second run finds what the first one sent; other sources have a random one."""
    report.begin("sending", source.total)
    upload = Upload(rpcs, source, dataset, upload_id or _own_id(dataset, source), limits, report)
    try:
        return upload.run()
    except UploadChanged:
        # Files that were uploaded completely and have changed since are a new upload.
        if upload_id is not None or source.identity is None or not upload.was_finished:
            raise
    return upload_source(rpcs, source, dataset, uuid.uuid4().hex, limits, report)


def _own_id(dataset: str, source: ImageSource) -> str:
    if source.identity is None:
        return uuid.uuid4().hex
    names = hashlib.sha256("\n".join([dataset, *source.identity]).encode("utf-8", "surrogateescape"))
    return f"auto-{names.hexdigest()[:32]}"


class Upload:
    """One run of an upload. It skips the images that an earlier run sent, sends the others, and reports on each
    image."""

    def __init__(
        self,
        rpcs: Rpcs,
        source: ImageSource,
        dataset: str,
        upload_id: str,
        limits: Limits,
        report: Report,
    ) -> None:
        self._rpcs = rpcs
        self._source = source
        self._dataset = dataset
        self._upload_id = upload_id
        self._progress = report
        self.was_finished = False
        self._has_opened = False
        self._has_sent_finish = False
        self._window = Window()
        self._num_images = 0
        self._collected = RunReport()
        self._batcher = Batcher(limits)
        self._handover = Handover()
        self._silence = Deadline(None)
        self._stream: UploadStream | None = None
        self._outcome: UploadReport | BaseException | None = None
        deadlines = rpcs.channel.deadlines
        self._backoff = Backoff(
            give_up_after_s=deadlines.reconnect_s,
            longest_attempt_s=deadlines.longest_s,
            sleep=self._handover.sleep,
        )

    def run(self) -> UploadReport:
        """Upload all images. Raises UploadChanged if an earlier run under this id sent other images, and ValueError if
        there are no images."""
        sender = threading.Thread(target=self._send, name="manyview-upload", daemon=True)
        sender.start()
        try:
            with closing(self._sendable(iter(self._source))) as images:
                for image in images:
                    if not self._handover.put(image):
                        break
                    self._report_progress()
            self._handover.complete()
            while not self._handover.wait_for_done():
                self._report_progress()
        except BaseException:
            self._stop()
            sender.join(_JOIN_S)
            raise
        self._report_progress()
        sender.join()
        assert self._outcome is not None
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome

    def _report_progress(self) -> None:
        if done := self._handover.collect_done():
            self._progress.advance(done)

    def _stop(self) -> None:
        """End the sending thread, also while it waits. The caller's thread calls this."""
        self._handover.stop()
        if self._stream is not None:
            self._stream.close()

    # --- the sending thread

    def _send(self) -> None:
        try:
            self._outcome = self._run()
        except BaseException as error:  # raised in the caller's thread
            self._outcome = error
        finally:
            self._handover.end()

    def _run(self) -> UploadReport:
        status = self._status()
        if status is not None:
            self.was_finished = status.finished
            self._skip(status)
            if status.finished:
                if next(self._images(), None) is not None:
                    raise self._changed("it was finished with fewer images")
                return self._report(status)
        while True:
            try:
                return self._report(self._session(status))
            except ManyviewError as error:
                if self._create_missing_dataset(error):
                    continue
                before, status = status, self._recheck(error)
                if isinstance(error, UploadChanged) and _number(before) == _number(status):
                    raise
                if status is None and self._is_removed:
                    return self._report(pb.Upload(num_images=self._num_images, num_rejected=self._num_images))
                if status is not None and self._window.is_fresh:
                    self._skip(status)

    def _create_missing_dataset(self, error: ManyviewError) -> bool:
        """Create the data set on a server that is too old to do so when a stream opens. Return False if the error is
        another one."""
        if error.reason != "DATASET_NOT_FOUND" or self._has_opened or self._num_images:
            return False
        with suppress(AlreadyExists):
            name = self._dataset.removeprefix("datasets/")
            self._rpcs.create_dataset(pb.CreateDatasetRequest(dataset_id=name))
        self._has_opened = True
        return True

    @property
    def _is_removed(self) -> bool:
        """Did the server finish the upload and remove its data set, because it had refused all images?"""
        all_rejected = self._collected.num_rejected == self._num_images
        return self._has_sent_finish and self._window.is_empty and all_rejected

    def _images(self) -> Iterator[EncodedImage]:
        """Yield the images that have no number yet. A caller that stops early leaves the others where they are."""
        while (waiting := self._batcher.take_back()) is not None:
            yield waiting
        while True:
            image = self._handover.take()
            if image is not None:
                yield image
            elif self._handover.is_exhausted:
                return

    def _recheck(self, error: ManyviewError) -> pb.Upload | None:
        """Wait after a broken stream, and ask the server for the status of the upload until it answers.

        The broken stream may have committed a batch since the server was last asked. Then the digest in the header of
        the next stream does not fit, which the server reports as a change. While there is nothing to send, the server
        is not asked."""
        if not (may_reopen(error) or isinstance(error, UploadChanged) or error.reason == "SEQUENCE_GAP"):
            raise error
        self._window.rewind()
        if self._window.is_empty and self._batcher.is_empty:
            self._handover.wait()
        while True:
            self._backoff.wait(error)
            try:
                return self._status()
            except ManyviewError as failure:
                # Until a dead connection is noticed, its calls end with their deadline.
                if not (is_transient(failure) or isinstance(failure, DeadlineExceeded)):
                    raise
                error = failure

    def _sendable(self, images: Iterator[EncodedImage]) -> Generator[EncodedImage]:
        """Yield the images that can be sent, and keep the errors of the others. This runs in the caller's thread."""
        for image in images:
            self._collected.add_image(image)
            if image.error is not None:
                self._progress.advance(1)
            else:
                yield image

    def _status(self) -> pb.Upload | None:
        try:
            reply = self._rpcs.get_upload(pb.GetUploadRequest(dataset=self._dataset, upload_id=self._upload_id))
        except NotFound:
            return None
        return reply.upload

    def _skip(self, status: pb.Upload) -> None:
        """Skip the images that the server acknowledged to an earlier run. Their digest proves that they are the
        same."""
        if status.num_images > self._num_images:
            self._progress.proceed("comparing with an earlier run")
        digest = self._window.last_digest
        for image in islice(self._images(), status.num_images - self._num_images):
            digest = chain(digest, [image])
            self._num_images += 1
            self._handover.add_done(1)
        if self._num_images < status.num_images or digest != status.digest:
            count = status.num_images
            raise self._changed("the first image differs" if count == 1 else f"the first {count:,} images differ")
        self._progress.proceed("sending")
        self._collected.before = status
        self._window = Window(committed=status.committed_number, digest=digest)

    def _changed(self, how: str) -> UploadChanged:
        text = (
            f"upload {self._upload_id} was started with other images ({how}); pass another upload_id to start a new one"
        )
        return UploadChanged(text, reason="UPLOAD_CHANGED")

    def _session(self, status: pb.Upload | None) -> pb.Upload:
        """Use one stream, from its header to `finished`."""
        if status is not None and status.finished:
            return status
        if status is None and self._window.is_fresh and self._batcher.is_empty:
            # A stream creates the data set, so there must be an image first.
            self._handover.wait()
            if self._is_exhausted:
                return self._nothing_sent()
        committed = status.committed_number if status is not None else 0
        with self._rpcs.upload_images(on_message=self._handover.wake) as stream:
            self._stream = stream
            self._handover.check()
            digest = self._window.digest_at(committed)
            header = pb.UploadHeader(
                dataset=self._dataset, upload_id=self._upload_id, resume_digest=digest, create_dataset=not digest
            )
            stream.send(pb.UploadImagesRequest(header=header))
            opened = stream.expect("opened").opened
            self._has_opened = True
            self._window.limit(opened.max_unacked_batches, opened.max_unacked_bytes)
            self._expect_ack()
            self._send_all(stream)
            if self._num_images == 0:
                self._nothing_sent()
            stream.send(pb.UploadImagesRequest(finish=pb.UploadFinish(num_images=self._num_images)))
            self._has_sent_finish = True
            stream.finish_sending()
            return stream.expect("finished").finished.upload

    def _nothing_sent(self) -> pb.Upload:
        """Return an upload without images, if there are images that could not be sent. Raises ValueError if there are
        none."""
        if not self._collected.has_unsent:
            raise ValueError(
                ": ".join(filter(None, ("there are no images to upload", self._source.skipped.described())))
            )
        return pb.Upload()

    def _send_all(self, stream: UploadStream) -> None:
        """Send while the window has room, and wait for acks, until all images are acknowledged."""
        while True:
            self._send_waiting(stream)
            batch = self._next_batch(stream) if self._window.wants_more else None
            if batch is not None:
                was_empty = self._window.is_empty
                self._num_images += len(batch)
                self._window.add(batch)
                if was_empty:
                    self._expect_ack()
            elif self._window.is_empty and self._is_exhausted:
                return
            else:
                self._receive_ack(stream)

    @property
    def _is_exhausted(self) -> bool:
        return self._batcher.is_empty and self._handover.is_exhausted

    def _next_batch(self, stream: UploadStream) -> list[EncodedImage] | None:
        """Return the next batch, once it is full or has waited long enough. Return None when there is something to
        receive, when there are no more images, or when the server owes acks and has been silent for too long."""
        while not stream.ready:
            if (batch := self._batcher.take()) is not None:
                return batch
            owed_s = None if self._window.is_empty else self._silence.left_s()
            waits = [wait_s for wait_s in (self._batcher.due_s(), owed_s) if wait_s is not None]
            image = self._handover.take(min(waits, default=None))
            if image is not None:
                self._batcher.add(image)
                for following in self._handover.take_gathered(*self._batcher.room):
                    self._batcher.add(following)
            elif self._handover.is_exhausted:
                self._batcher.close()
                return self._batcher.take()
            elif owed_s == 0:
                return None
        return None

    def _expect_ack(self) -> None:
        """Start the time in which the server must send an ack."""
        self._silence = Deadline(self._ack_s)

    @property
    def _ack_s(self) -> float:
        """The time that the next ack may take. A batch of one large image has more, in proportion to its size."""
        return self._rpcs.channel.deadlines.idle_s * max(1.0, self._window.owed_bytes / BATCH_BYTES)

    def _send_waiting(self, stream: UploadStream) -> None:
        while (batch := self._window.take()) is not None:
            stream.send(batch.message)

    def _receive_ack(self, stream: UploadStream) -> None:
        ack = stream.expect("ack", idle_s=self._ack_s).ack
        batch = self._window.ack(ack.number)
        self._expect_ack()
        self._backoff.succeeded()
        self._collected.add_ack(batch, ack)
        self._handover.add_done(len(batch.keys))

    def _report(self, upload: pb.Upload) -> UploadReport:
        return self._collected.finished(self._upload_id, upload, self._source.skipped.summary())


def _number(status: pb.Upload | None) -> int:
    return 0 if status is None else status.committed_number
