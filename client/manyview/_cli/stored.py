"""Images of a data set as the command line names them: by key, or as id:ID, because keys need not be unique."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manyview import Sample

PREFIX = "id:"
COLUMNS = ("IMAGE", "LABEL", "SCORE", "KEY")
TABLE = ".tsv"


@dataclass(frozen=True)
class ImageId:
    """An image that is named by its id."""

    image_id: str

    @property
    def key(self) -> str:
        """The name that tables show."""
        return PREFIX + self.image_id


def named(words: Iterable[str]) -> list[str | ImageId]:
    """Return the images that these words name: ids for `id:ID`, keys for all others."""
    return [ImageId(word.removeprefix(PREFIX)) if word.startswith(PREFIX) else word for word in words]


def read(path: Path) -> list[str | ImageId]:
    """Return the images of a file that `write` wrote, or that has a key or id:ID on each line. Raises ValueError if a
    table has no column of images."""
    with path.open(newline="") as file:
        if path.suffix != TABLE:
            return named(line for line in file.read().splitlines() if line)
        table = csv.DictReader(file, dialect="excel-tab")
        if COLUMNS[0] not in (table.fieldnames or ()):
            raise ValueError(f"{path}: the table must have the column {COLUMNS[0]}, like one that --out writes")
        return [ImageId(row[COLUMNS[0]]) for row in table]


def write(samples: Sequence[Sample], path: Path) -> None:
    """Write the keys as .txt, or ids, labels, scores and keys as .tsv, which is exact even if keys are not unique."""
    with path.open("w", newline="") as file:
        if path.suffix != TABLE:
            file.writelines(f"{sample.key}\n" for sample in samples)
            return
        table = csv.writer(file, dialect="excel-tab", lineterminator="\n")
        table.writerow(COLUMNS)
        for sample in samples:
            score = "" if sample.score is None else f"{sample.score:.6g}"
            table.writerow((sample.image_id, sample.image.label, score, sample.key))
