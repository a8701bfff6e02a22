"""The report of one run of an upload, collected while it runs."""

from __future__ import annotations

from manyview import _convert
from manyview._types.uploads import LabelConflict, RejectedImage, SkippedFiles, UploadReport
from manyview._uploads.encoded_image import EncodedImage
from manyview._uploads.window import OutgoingBatch
from manyview.v1 import dataset_service_pb2 as pb

# The most recompressed images that a report names.
_NUM_NAMED = 20


class RunReport:
    """Collects what becomes of each image. The caller's thread adds images, and the sending thread adds acks."""

    def __init__(self) -> None:
        self.before = pb.Upload()
        """The state of the upload after earlier runs, as the server reported it."""
        self._unsent: list[RejectedImage] = []
        self._rejected: list[RejectedImage] = []
        self._conflicts: list[LabelConflict] = []
        self._num_recompressed = 0
        self._recompressed: list[str] = []

    @property
    def has_unsent(self) -> bool:
        """Could an image not be sent?"""
        return bool(self._unsent)

    @property
    def num_rejected(self) -> int:
        """The number of images that the server refused in all runs."""
        return len(self._rejected) + self.before.num_rejected

    def add_image(self, image: EncodedImage) -> None:
        """Add an image of the caller, which is sent unless it has an error."""
        if image.error is not None:
            self._unsent.append(RejectedImage(key=image.key, error=image.error, was_sent=False))
            return
        self._num_recompressed += image.is_recompressed
        if image.is_recompressed and len(self._recompressed) < _NUM_NAMED:
            self._recompressed.append(image.key)

    def add_ack(self, batch: OutgoingBatch, ack: pb.BatchAck) -> None:
        """Add the server's answer to a batch."""
        for key, label, result in zip(batch.keys, batch.labels, ack.results, strict=True):
            if result.outcome == pb.ImageResult.OUTCOME_REJECTED:
                self._rejected.append(RejectedImage(key=key, error=_convert.image_error(result.error)))
            elif result.label_differs:
                self._conflicts.append(
                    LabelConflict(key=key, label=label, first_key=result.first_key, first_label=result.first_label)
                )

    def finished(self, upload_id: str, upload: pb.Upload, skipped: tuple[SkippedFiles, ...]) -> UploadReport:
        """Return the report. `upload` is the final state of the upload."""
        before = self.before
        return UploadReport(
            upload_id=upload_id,
            num_sent=upload.num_images,
            num_stored=upload.num_stored - before.num_stored,
            num_duplicates=upload.num_duplicates - before.num_duplicates,
            num_rejected=upload.num_rejected - before.num_rejected + len(self._unsent),
            rejected=(*self._unsent, *self._rejected),
            label_conflicts=tuple(self._conflicts),
            resumed_from=before.num_images,
            num_rejected_before=before.num_rejected,
            skipped=skipped,
            num_recompressed=self._num_recompressed,
            recompressed=tuple(self._recompressed),
        )
