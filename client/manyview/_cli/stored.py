"""Images of a data set as the command line names them: by a key, or by "id:" and an id, where keys are not unique."""

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
    """An image by its id."""

    image_id: str

    @property
    def key(self) -> str:
        """What it is called in tables."""
        return PREFIX + self.image_id


def named(words: Iterable[str]) -> list[str | ImageId]:
    """Keys and ids."""
    return [ImageId(word.removeprefix(PREFIX)) if word.startswith(PREFIX) else word for word in words]


def read(path: Path) -> list[str | ImageId]:
    """The images of a file: what `write` wrote, or a key or id:ID on each line. Raises ValueError for another table."""
    with path.open(newline="") as file:
        if path.suffix != TABLE:
            return named(line for line in file.read().splitlines() if line)
        table = csv.DictReader(file, dialect="excel-tab")
        if COLUMNS[0] not in (table.fieldnames or ()):
            raise ValueError(f"{path}: expected a table with the column {COLUMNS[0]}, as --out writes it")
        return [ImageId(row[COLUMNS[0]]) for row in table]


def write(samples: Sequence[Sample], path: Path) -> None:
    """Keys as .txt; ids, labels, scores and keys as .tsv, which is right where keys are not unique, too."""
    with path.open("w", newline="") as file:
        if path.suffix != TABLE:
            file.writelines(f"{sample.key}\n" for sample in samples)
            return
        table = csv.writer(file, dialect="excel-tab", lineterminator="\n")
        table.writerow(COLUMNS)
        for sample in samples:
            score = "" if sample.score is None else f"{sample.score:.6g}"
            table.writerow((sample.image_id, sample.image.label, score, sample.key))
