"""The result of an upload, and its text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from manyview._progress.words import number_of
from manyview._types.images import ImageError
from manyview._types.words import SkipReason

_COLUMNS = 100
_NUM_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class RejectedImage:
    """An image of an upload that was not stored. Without `was_sent`, the client refused it, because it is too large or
    cannot be read. The server then knows nothing of it, and each run of the upload reports it again."""

    key: str
    error: ImageError
    was_sent: bool = True


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

    def __repr__(self) -> str:
        return f"<manyview.UploadReport {counts(self)}>"

    def __str__(self) -> str:
        """Return the report as the command line prints it."""
        return "\n".join([counts(self), *wrapped(details(self), _COLUMNS)])

    def _repr_html_(self) -> str:
        return f'<pre style="font-family: monospace">{escape(str(self))}</pre>'

    @property
    def num_found(self) -> int:
        """The number of images and files that the upload found."""
        return self.num_stored + self.num_duplicates + self.num_rejected + self.resumed_from + self.num_skipped

    @property
    def num_skipped(self) -> int:
        """The number of files that were passed over."""
        return sum(files.num_files for files in self.skipped)


def counts(report: UploadReport) -> str:
    """Return the numbers, which add up to what was found."""
    found = {
        "stored": report.num_stored,
        "duplicate" if report.num_duplicates == 1 else "duplicates": report.num_duplicates,
        "sent before": report.resumed_from,
        "refused": report.num_rejected,
        "passed over": report.num_skipped,
    }
    parts = [f"{count:,} {word}" for word, count in found.items() if count or word == "stored"]
    return f"{report.num_found:,} found: {', '.join(parts)}"


def details(report: UploadReport, dataset_id: str = "DATASET") -> Iterator[str]:
    """Yield the reasons why images are missing, with the names of a few images for each."""
    for reason, images in _by_reason(report.rejected).items():
        yield f"  refused {len(images):,} {reason}"
        yield from _first((f"{image.key}: {image.error.message}" for image in images), len(images))
    if num_unsent := sum(not image.was_sent for image in report.rejected):
        unsent = number_of(num_unsent, "refused file was not sent", "refused files were not sent")
        names = "it" if num_unsent == 1 else "them (--json names all)"
        yield f"  {unsent}: only the report of an upload names {names}"
    if report.num_rejected_before:
        lists = f"manyview images {dataset_id} --status REJECTED lists them"
        yield f"  an earlier run refused {report.num_rejected_before:,} of the images that it sent; {lists}"
    yield from skipped_lines(report.skipped)
    if report.num_recompressed:
        yield f"  sent {number_of(report.num_recompressed, 'image')} as JPEG or WebP: as PNG too large"
    if conflicts := report.label_conflicts:
        yield f"  other labels {len(conflicts):,}: copies of an image whose first label stays"
        texts = (f"{one.key} {one.label!r}, first {one.first_key} {one.first_label!r}" for one in conflicts)
        yield from _first(texts, len(conflicts))


def skipped_lines(skipped: Sequence[SkippedFiles]) -> Iterator[str]:
    """Yield how many files were passed over for each reason, with a few names."""
    for files in skipped:
        more = files.num_files - min(len(files.names), _NUM_NAMED)
        named = ", ".join(files.names[:_NUM_NAMED]) + (f" and {more:,} more" if more else "")
        yield f"  passed over {files.num_files:,} {files.reason}: {named}"
        if files.hint:
            yield f"    {files.hint}"


def wrapped(lines: Iterable[str], columns: int) -> Iterator[str]:
    """Yield the lines, broken between words to fit `columns`. What follows a break is indented further."""
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        yield from textwrap.wrap(
            line, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )


def _first(texts: Iterator[str], count: int) -> Iterator[str]:
    """Yield the first of `count` texts, and how many more there are."""
    yield from (f"    {text}" for text, _ in zip(texts, range(_NUM_NAMED), strict=False))
    if count > _NUM_NAMED:
        yield f"    and {count - _NUM_NAMED:,} more"


def _by_reason(rejected: Sequence[RejectedImage]) -> dict[str, list[RejectedImage]]:
    groups: dict[str, list[RejectedImage]] = {}
    for image in rejected:
        groups.setdefault(image.error.reason, []).append(image)
    return dict(sorted(groups.items(), key=lambda group: -len(group[1])))
