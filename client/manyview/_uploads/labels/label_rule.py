"""The rules that give each image of an upload its label."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any

from manyview._progress.words import number_of
from manyview._uploads.encoded_image import EncodedImage
from manyview._uploads.labels import label_file
from manyview._uploads.labels.label_text import label_text

_NUM_NAMED = 3
"""The most keys that an error names."""
_ALLOWED = "labels must be 'folder', 'path', 'none', a file (.csv, .tsv, .json, .jsonl), a mapping by key or a sequence"

Labels = str | os.PathLike[str] | Mapping[Any, Any] | Collection[Any]
"""A word ("folder", "path", "none"), the path of a file, labels by key, or labels in the order of the images. Arrays,
tensors and columns of tables count as sequences."""


class LabelRule:
    """Gives images their labels. This one leaves them the labels that they have: those in shards and pairs, and the
    last folder of a file that was found in a folder."""

    identity: str | None = None
    """A name of the labels: an upload of the same files with other labels is another upload."""

    def check(self, keys: Sequence[str] | None, total: int | None) -> None:
        """Raise ValueError if the labels do not fit the images, as far as these are known before they are read."""

    def label_of_file(self, key: str, last_folder: str) -> str:
        """Return the label that a file has because of its folder. `last_folder` is "" for a file that was named."""
        return last_folder

    def label_of_item(self, value: Any, of: str) -> str:
        """Return the label of a pair or a mapping as text. Raises TypeError or ValueError like `label_text`."""
        return label_text(value, of)

    def apply(self, images: Iterator[EncodedImage]) -> Iterator[EncodedImage]:
        """Yield the images with their labels. Raises ValueError at the end if some labels belong to no image."""
        return images


def rule_for(labels: Labels | None) -> LabelRule:
    """Return the rule that `labels` stands for. All its values are checked now.

    Raises TypeError or ValueError, which name the value that is wrong, and FileNotFoundError.
    """
    if labels is None:
        return LabelRule()
    if isinstance(labels, str) and labels in _WORDS:
        return _WORDS[labels]()
    if isinstance(labels, str | os.PathLike):
        return _from_file(Path(labels))
    if isinstance(labels, Mapping):
        named = {_key(key): label_text(value, f"labels[{key!r}]") for key, value in labels.items()}
        return LabelsByKey(named, "labels")
    return LabelsInOrder([label_text(value, f"labels[{index}]") for index, value in enumerate(_values(labels))])


class LastFolder(LabelRule):
    """An image without a label of its own is labelled with the last folder of its key."""

    identity = "folder"

    def label_of_file(self, key: str, last_folder: str) -> str:
        return self._of_key(key)

    def apply(self, images: Iterator[EncodedImage]) -> Iterator[EncodedImage]:
        for image in images:
            yield image if image.label else replace(image, label=self._of_key(image.key))

    def _of_key(self, key: str) -> str:
        return PurePosixPath(key).parent.name


class WholePath(LastFolder):
    """An image without a label of its own is labelled with all folders of its key."""

    identity = "path"

    def _of_key(self, key: str) -> str:
        return "/".join(part for part in PurePosixPath(key).parent.parts if part != "/")


class NoLabels(LabelRule):
    """No image is labelled."""

    identity = "none"

    def label_of_item(self, value: Any, of: str) -> str:
        return ""

    def apply(self, images: Iterator[EncodedImage]) -> Iterator[EncodedImage]:
        for image in images:
            yield replace(image, label="")


_WORDS = {rule.identity: rule for rule in (LastFolder, WholePath, NoLabels)}


class LabelsByKey(LabelRule):
    """Labels by the keys of images. An image that is not named keeps the label that it has."""

    def __init__(self, labels: Mapping[Any, str], origin: str) -> None:
        self._labels = labels
        self._origin = origin
        self.identity = _digest(f"{key}\0{label}" for key, label in sorted(labels.items(), key=str))

    def check(self, keys: Sequence[str] | None, total: int | None) -> None:
        if keys is not None and total is not None:
            self._refuse(self._labels.keys() - set(keys), keys)

    def apply(self, images: Iterator[EncodedImage]) -> Iterator[EncodedImage]:
        unused, first = set(self._labels), list[str]()
        for image in images:
            unused.discard(image.key)
            if len(first) < _NUM_NAMED:
                first.append(image.key)
            yield replace(image, label=self._labels.get(image.key, image.label))
        self._refuse(unused, first)

    def _refuse(self, unused: Collection[object], keys: Sequence[str]) -> None:
        if not unused:
            return
        named = ", ".join(map(repr, sorted(unused, key=str)[:_NUM_NAMED]))
        most = f" and {len(unused) - _NUM_NAMED} more" if len(unused) > _NUM_NAMED else ""
        there = f"the first keys are {', '.join(map(repr, keys[:_NUM_NAMED]))}" if keys else "there are no images"
        raise ValueError(f"{self._origin}: no image has the key {named}{most}; {there}")


class LabelsInOrder(LabelRule):
    """Labels in the order of the images, one for each. Nobody knows how many images a broken shard had."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self.identity = _digest(labels)

    def check(self, keys: Sequence[str] | None, total: int | None) -> None:
        if total is not None and total != len(self._labels):
            raise ValueError(f"{self._given()}, but there {'is' if total == 1 else 'are'} {number_of(total, 'image')}")

    def apply(self, images: Iterator[EncodedImage]) -> Iterator[EncodedImage]:
        for image, label in zip_longest(images, self._labels):
            if image is None or label is None:
                there = "fewer" if image is None else "more"
                raise ValueError(f"{self._given()}, but there are {there} images")
            if image.error is not None and image.error.reason == "SHARD_UNREADABLE":
                lost = "so the labels that follow have no place; give labels by key"
                raise ValueError(f"{image.key}: {image.error.message}, {lost}")
            yield replace(image, label=label)

    def _given(self) -> str:
        return number_of(len(self._labels), "label was given", "labels were given")


def _from_file(path: Path) -> LabelsByKey:
    if not path.exists():
        raise FileNotFoundError(f"labels: there is no file {path}; {_ALLOWED}")
    first: dict[str, tuple[str, str]] = {}
    for entry in label_file.read(path):
        label = label_text(entry.label, f"{entry.where}, field label")
        before, where = first.setdefault(entry.key, (label, entry.where))
        if before != label:
            raise ValueError(f"{entry.where}, field key: {entry.key!r} has another label, {before!r}, at {where}")
    return LabelsByKey({key: label for key, (label, _) in first.items()}, str(path))


def _key(key: Any) -> Any:
    return Path(key).as_posix() if isinstance(key, os.PathLike) else key


def _values(labels: Any) -> Iterable[Any]:
    if hasattr(labels, "columns") and getattr(labels, "ndim", 0) == 2:
        raise TypeError('labels must not be a table: give one column, table["label"], or dict(zip(keys, labels))')
    if isinstance(labels, bytes | bytearray | set | frozenset) or not hasattr(labels, "__len__"):
        hint = "; make a list of it" if hasattr(labels, "__next__") else ""
        raise TypeError(f"{_ALLOWED}, not a {type(labels).__name__}{hint}")
    # Python's own values are much faster to walk than those of arrays and tensors, and a masked one becomes None.
    values: Iterable[Any] = labels.tolist() if getattr(labels, "ndim", 0) == 1 else labels
    return values


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
