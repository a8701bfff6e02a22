"""The report of an upload as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from manyview._types.uploads import RejectedImage, SkippedFiles, UploadReport

_NUM_NAMED = 3
_NUM_CONFLICTS = 20


def counts(report: UploadReport) -> str:
    """Return the numbers, which add up to what was found."""
    found = {
        "stored": report.num_stored,
        "duplicate" if report.num_duplicates == 1 else "duplicates": report.num_duplicates,
        "sent before": report.resumed_from,
        "refused": report.num_rejected,
        "passed over": report.num_skipped,
    }
    parts = [f"{count} {word}" for word, count in found.items() if count or word == "stored"]
    return f"{report.num_found} found: {', '.join(parts)}"


def details(report: UploadReport, dataset_id: str) -> Iterator[str]:
    """Yield the reasons why images are missing, with the names of a few images for each."""
    for reason, images in _by_reason(report.rejected).items():
        yield f"  refused {len(images)} {reason}"
        yield from (f"    {image.key}: {image.error.message}" for image in images[:_NUM_NAMED])
        if len(images) > _NUM_NAMED:
            yield f"    and {len(images) - _NUM_NAMED} more"
    if report.num_rejected_before:
        lists = f"manyview images {dataset_id} --status REJECTED lists them"
        yield f"  an earlier run refused {report.num_rejected_before} of the images that it sent; {lists}"
    yield from skipped_lines(report.skipped)
    if report.num_recompressed:
        yield f"  sent {report.num_recompressed} images as JPEG or WebP: as PNG they were too large"
    for conflict in report.label_conflicts[:_NUM_CONFLICTS]:
        kept = f"{conflict.first_key}, the same image, was labelled {conflict.first_label!r} first, which stays"
        yield f"  {conflict.key} is labelled {conflict.label!r}, but {kept}"


def skipped_lines(skipped: Sequence[SkippedFiles]) -> Iterator[str]:
    """Yield how many files were passed over for each reason, with a few names."""
    for files in skipped:
        more = files.num_files - min(len(files.names), _NUM_NAMED)
        named = ", ".join(files.names[:_NUM_NAMED]) + (f" and {more} more" if more else "")
        yield f"  passed over {files.num_files} {files.reason}: {named}"
        if files.hint:
            yield f"    {files.hint}"


def _by_reason(rejected: Sequence[RejectedImage]) -> dict[str, list[RejectedImage]]:
    groups: dict[str, list[RejectedImage]] = {}
    for image in rejected:
        groups.setdefault(image.error.reason, []).append(image)
    return dict(sorted(groups.items(), key=lambda group: -len(group[1])))
