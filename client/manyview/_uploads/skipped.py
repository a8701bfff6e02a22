"""The files that an upload found and did not send, counted by reason."""

from __future__ import annotations

import copy

from manyview._progress.words import number_of
from manyview._types.uploads import SkippedFiles
from manyview._types.words import SkipReason
from manyview._uploads.encoded_image import readable_text
from manyview._uploads.signatures import READ_FORMATS

_NUM_NAMED = 20
"""The most files of one reason that are named."""
_NUM_SHOWN = 3
"""The most files of one reason that an error names."""
_HINTS: dict[SkipReason, str] = {
    "FORMAT_NOT_READ": f"A server reads {', '.join(READ_FORMATS)}. Convert other images, for example with ImageMagick: "
    "magick mogrify -format jpg FILES. HEIC: apt install libheif-examples, then heif-convert IN.heic OUT.jpg; or in "
    "Python, pip install pillow-heif, call pillow_heif.register_heif_opener(), and upload what PIL.Image.open returns.",
    "CAPTION": "These texts are no labels: not all texts of the shard look like names of classes, or the samples have "
    'another label. To make labels of them, pass label="txt" or --label txt.',
    "LINK_IN_SHARD": "Make the shard with the files instead of links, for example with tar --dereference.",
}


class SkippedCount:
    """Counts files by the reason why they are passed over, and keeps the names of the first ones of each reason."""

    def __init__(self) -> None:
        self._counts: dict[SkipReason, int] = {}
        self._names: dict[SkipReason, list[str]] = {}

    def add(self, reason: SkipReason, name: str) -> None:
        """Count one file. `name` is its path, or a shard's path, a colon and the name of a member."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        names = self._names.setdefault(reason, [])
        if len(names) < _NUM_NAMED:
            names.append(readable_text(name))

    def copy(self) -> SkippedCount:
        """Return a count that starts where this one is."""
        return copy.deepcopy(self)

    def summary(self) -> tuple[SkippedFiles, ...]:
        """Return the counts, the largest first."""
        found = [
            SkippedFiles(reason=reason, num_files=count, names=tuple(self._names[reason]), hint=_HINTS.get(reason, ""))
            for reason, count in self._counts.items()
        ]
        return tuple(sorted(found, key=lambda files: (-files.num_files, files.reason)))

    def described(self) -> str:
        """Return the counts with a few names, and the hints, as the end of an error. It is "" if nothing was passed
        over."""
        found = self.summary()
        counts = "; ".join(
            f"{files.num_files} {files.reason} ({', '.join(files.names[:_NUM_SHOWN])})" for files in found
        )
        hints = "".join(f"\n  {files.hint}" for files in found if files.hint)
        return f"{number_of(sum(files.num_files for files in found), 'file')}, {counts}{hints}" if found else ""
