"""Files that hold the labels of images: a table (.csv, .tsv), one JSON object (.json), or one JSON object on each line
(.jsonl, .ndjson). All are UTF-8. docs/uploads.md has an example of each.

Every error names the file, and the line and the field where that is possible.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from manyview._progress.words import number_of

_FIELDS = ("key", "label")


@dataclass(frozen=True)
class LabelEntry:
    """One label of a file, as it is written there. `where` names the file, and the line if there is one."""

    key: str
    label: Any
    where: str


def read(path: Path) -> Iterator[LabelEntry]:
    """Yield the labels of a file in its order.

    Raises FileNotFoundError if there is no such file, and ValueError if its format is not known or it does not have
    that format.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"labels: the name of {path} must end in {', '.join(_READERS)}, which is its format")
    if path.is_dir():
        raise ValueError(f"labels: {path} is a folder, not a file of labels")
    return reader(path, _text(path))


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: byte {error.start} is not UTF-8; save the file as UTF-8") from None


def _rows_of_csv(path: Path, text: str) -> Iterator[LabelEntry]:
    return _rows(path, text, ",")


def _rows_of_tsv(path: Path, text: str) -> Iterator[LabelEntry]:
    return _rows(path, text, "\t")


def _rows(path: Path, text: str, delimiter: str) -> Iterator[LabelEntry]:
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if not row:
                continue
            if not header:
                header = [name.strip() for name in row]
                _check_header(header, where)
            elif len(row) != len(header):
                hint = "; put a text that holds the separator in double quotes" if len(row) > len(header) else ""
                raise ValueError(f"{where}: {number_of(len(row), 'field')}, but the header has {len(header)}{hint}")
            else:
                fields = dict(zip(header, row, strict=True))
                yield LabelEntry(_key(fields["key"], where), fields["label"], where)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    if not header:
        raise ValueError(f"{path} is empty; its first line must name the columns key and label")


def _check_header(header: list[str], where: str) -> None:
    for field in _FIELDS:
        if header.count(field) != 1:
            raise ValueError(f"{where}: the header must name the columns key and label once; it has {_named(header)}")


def _one_object(path: Path, text: str) -> Iterator[LabelEntry]:
    pairs = _json(path, text, 0)
    if not isinstance(pairs, _Fields):
        hint = "; one object for each image belongs into a .jsonl file" if isinstance(pairs, list) else ""
        raise ValueError(f'{path} must hold one JSON object such as {{"cat/1.jpg": "cat"}}{hint}')
    for key, label in pairs.items:
        where = f"{path}, key {key!r}"
        yield LabelEntry(_key(key, where), _value(label), where)


def _one_object_a_line(path: Path, text: str) -> Iterator[LabelEntry]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        pairs = _json(path, line, number - 1)
        if not isinstance(pairs, _Fields):
            raise ValueError(f"{where}: it must be a JSON object with the fields key and label")
        fields = dict(pairs.items)
        for field in _FIELDS:
            if field not in fields:
                raise ValueError(f"{where}: the field {field} is missing; it has {_named(fields)}")
        yield LabelEntry(_key(fields["key"], where), _value(fields["label"]), where)


@dataclass(frozen=True)
class _Fields:
    """A JSON object. Unlike a dict it keeps a key that is there twice."""

    items: list[tuple[str, Any]]


def _json(path: Path, text: str, num_lines_before: int) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Fields)
    except json.JSONDecodeError as error:
        where = f"{path}, line {num_lines_before + error.lineno}"
        raise ValueError(f"{where}: it is not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError:
        raise ValueError(f"{path}, line {num_lines_before + 1}: its values are nested too deeply") from None


def _value(label: Any) -> Any:
    return dict(label.items) if isinstance(label, _Fields) else label


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str) or not key:
        raise ValueError(f"{where}, field key: it must be the key of an image, not {key!r}")
    return key


def _named(names: Any) -> str:
    return ", ".join(map(repr, names)) or "none"


_READERS: dict[str, Callable[[Path, str], Iterator[LabelEntry]]] = {
    ".csv": _rows_of_csv,
    ".tsv": _rows_of_tsv,
    ".json": _one_object,
    ".jsonl": _one_object_a_line,
    ".ndjson": _one_object_a_line,
}
"""The readers, by the end of a file's name."""
