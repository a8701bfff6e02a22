"""The result of an upload."""

from __future__ import annotations

from dataclasses import dataclass

from manyview._types.images import ImageError
from manyview._types.words import SkipReason


@dataclass(frozen=True, kw_only=True)
class RejectedImage:
    """An image of an upload that was not stored."""

    key: str
    error: ImageError


@dataclass(frozen=True, kw_only=True)
class LabelConflict:
    """A second copy of an image that came with another label. The data set keeps `first_label`."""

    key: str
    label: str
    first_key: str
    first_label: str


@dataclass(frozen=True, kw_only=True)
class SkippedFiles:
    """The files that an upload passed over for one reason: how many they are, the names of the first ones, and perhaps
    a hint that says what to do."""

    reason: SkipReason
    num_files: int
    names: tuple[str, ...]
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class UploadReport:
    """The result of an upload: what became of everything that it found.

    `num_found` = `num_stored` + `num_duplicates` + `num_rejected` + `resumed_from` + `num_skipped`. An earlier run sent
    `resumed_from` images, of which `num_rejected_before` were refused. The other numbers and the lists are of this run.
    `num_rejected` counts images that the server refused and images that could not be sent. `num_sent` images were
    acknowledged by the server, in all runs. `skipped` counts the files that were found beside the images.
    `num_recompressed` arrays and PIL images were too large as PNG and were sent as JPEG
    or WebP of high quality, so that their pixels are nearly, not exactly, those that were given; `recompressed` names
    the first of them.
    """

    upload_id: str
    num_sent: int
    num_stored: int
    num_duplicates: int
    num_rejected: int
    rejected: tuple[RejectedImage, ...] = ()
    label_conflicts: tuple[LabelConflict, ...] = ()
    resumed_from: int = 0
    num_rejected_before: int = 0
    skipped: tuple[SkippedFiles, ...] = ()
    num_recompressed: int = 0
    recompressed: tuple[str, ...] = ()

    @property
    def num_found(self) -> int:
        """The number of images and files that the upload found."""
        return self.num_stored + self.num_duplicates + self.num_rejected + self.resumed_from + self.num_skipped

    @property
    def num_skipped(self) -> int:
        """The number of files that were passed over."""
        return sum(files.num_files for files in self.skipped)
