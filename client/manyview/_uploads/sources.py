"""The caller's images, of any kind, as encoded images: one at a time, read when they are needed.

Files are sent unchanged. Arrays and PIL images are sent as binary PPM, which is raw pixels after a short header, or as
PNG if they have more than 4 MiB of pixels.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from manyview._types import ImageError
from manyview._uploads import pixels, shards

_NUM_NAMED = 3
"""The most keys that an error names."""
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".ppm"})


@dataclass(frozen=True)
class EncodedImage:
    """One image, ready to be sent. If `error` is set, the image is not sent, and `data` is empty."""

    key: str
    data: bytes
    label: str = ""
    error: ImageError | None = None

    @cached_property
    def sha256(self) -> bytes:
        return hashlib.sha256(self.data).digest()


class ImageSource:
    """Images that are pulled one by one.

    `identity` names them before they are read, if that is possible (folders, lists of paths, shards). The same names
    are the same upload. Such a source can be iterated again, other sources only once. `total` is None if it is unknown.
    """

    def __init__(
        self, pull: Callable[[], Iterator[EncodedImage]], *, identity: Sequence[str] | None, total: int | None
    ):
        self._pull = pull
        self.identity = identity
        self.total = total

    def __iter__(self) -> Iterator[EncodedImage]:
        return self._pull()


Labels = Sequence[str | int] | Mapping[str, str | int]


def open_source(images: Any, *, max_image_bytes: int, labels: Labels | None = None) -> ImageSource:
    """Return the caller's images as a source. Only folders are read yet.

    `images`: a folder, a WebDataset `.tar`, a path, bytes, a PIL image, a uint8 array (H, W, 3), (H, W) or (N, H, W,
    3), or an iterable of these, of (image, label) pairs or of mappings with "image" and perhaps "label" and "key".
    `labels` gives labels in the order of the images, or by key. Raises FileNotFoundError, ValueError (a folder without
    images, wrong shapes, labels for keys that no image has) or TypeError. Each names the item that is wrong.
    """
    source = _open(images, max_image_bytes)
    if labels is None:
        return source
    if isinstance(labels, Mapping) and source.identity is not None and source.total is not None:
        _refuse_unused(labels.keys() - set(source.identity), source.identity)
    return ImageSource(lambda: _relabelled(iter(source), labels), identity=source.identity, total=source.total)


def _open(images: Any, limit: int) -> ImageSource:
    if isinstance(images, str | os.PathLike):
        return _from_paths([Path(images)], limit)
    if isinstance(images, list | tuple) and images and all(isinstance(item, str | os.PathLike) for item in images):
        return _from_paths([Path(item) for item in images], limit)
    if isinstance(images, Mapping):
        raise TypeError("images must not be a mapping: pass its values, or its items as (image, label) pairs")
    if isinstance(images, bytes | bytearray | memoryview) or pixels.is_pil(images):
        images = [images]
    elif pixels.is_array(images):
        images = pixels.split(images)
    if not isinstance(images, Iterable) and not hasattr(images, "__getitem__"):
        raise TypeError(f"images must be a path, bytes, pixels or an iterable of these, not {type(images).__name__}")
    total = len(images) if hasattr(images, "__len__") else None
    return ImageSource(partial(_from_items, images, limit), identity=None, total=total)


def _from_paths(paths: Sequence[Path], limit: int) -> ImageSource:
    """Return a source of files. Folders are listed now. Files are read, and shards opened, when they are needed."""
    entries = [entry for path in paths for entry in _list(path)]
    has_shards = any(path.suffix == ".tar" for path, _, _ in entries)

    def pull() -> Iterator[EncodedImage]:
        for path, key, label in entries:
            if path.suffix == ".tar":
                for sample in shards.samples(path):
                    yield _checked(sample.key, sample.data, sample.label, limit)
            else:
                yield _read(path, key, label, limit)

    return ImageSource(pull, identity=[key for _, key, _ in entries], total=None if has_shards else len(entries))


def _list(path: Path) -> list[tuple[Path, str, str]]:
    """Return (path, key, label) of the images below a folder in sorted order, of one file, or of a shard."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not path.is_dir():
        return [(path, path.as_posix(), "")]
    files = sorted(Path(folder, name) for folder, _, names in os.walk(path) for name in names if name[0] != ".")
    found = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not found:
        tar_files = [(file, file.as_posix(), "") for file in files if file.suffix == ".tar"]
        if not tar_files:
            wanted = ", ".join(sorted(SUFFIXES))
            raise ValueError(f"no images below the folder {path}: {len(files)} files, none of them {wanted} or .tar")
        return tar_files
    relative = [file.relative_to(path) for file in found]
    # The label is the folder that an image lies in. The first folder below `path` may be "train" or "validation".
    return [(path / name, name.as_posix(), name.parent.name) for name in relative]


def _read(path: Path, key: str, label: str, limit: int) -> EncodedImage:
    size = path.stat().st_size
    return _too_large(key, label, size, limit) if size > limit else EncodedImage(key, path.read_bytes(), label)


def _checked(key: str, data: bytes, label: str, limit: int) -> EncodedImage:
    return _too_large(key, label, len(data), limit) if len(data) > limit else EncodedImage(key, data, label)


def _too_large(key: str, label: str, num_bytes: int, limit: int) -> EncodedImage:
    message = f"it has {num_bytes} bytes, at most {limit} are allowed"
    return EncodedImage(key, b"", label, ImageError(reason="IMAGE_TOO_LARGE", message=message))


def _from_items(items: Iterable[Any], limit: int) -> Iterator[EncodedImage]:
    for index, item in enumerate(items):
        key, label = f"{index:08d}", ""
        if isinstance(item, Mapping):
            item, label, key = _from_mapping(item, key)
        elif isinstance(item, tuple):
            item, label = _from_pair(item, index)
        yield _from_item(item, key, label, limit, index)


def _from_mapping(item: Mapping[str, Any], key: str) -> tuple[Any, str, str]:
    if "image" not in item:
        raise TypeError(f"image {key} is a mapping that lacks the field 'image'; it has {', '.join(map(str, item))}")
    return item["image"], _label(item.get("label", "")), str(item.get("key", key))


def _from_pair(item: tuple[Any, ...], index: int) -> tuple[Any, str]:
    if len(item) != 2:
        raise TypeError(f"image {index} must be a pair (image, label), not a tuple of {len(item)}")
    return item[0], _label(item[1])


def _from_item(item: Any, key: str, label: str, limit: int, index: int) -> EncodedImage:
    if isinstance(item, str | os.PathLike):
        path = Path(item)
        if not path.is_file():
            raise FileNotFoundError(f"image {index}: {path} is not a file")
        return _read(path, path.as_posix(), label, limit)
    if isinstance(item, bytes | bytearray | memoryview):
        return _checked(key, bytes(item), label, limit)
    if pixels.is_pil(item) or pixels.is_array(item):
        return _checked(key, pixels.encode(item), label, limit)
    hint = "; pass tensor.permute(1, 2, 0).numpy() as uint8" if "torch" in sys.modules and _is_tensor(item) else ""
    raise TypeError(f"image {index}: {type(item).__name__} is not a path, bytes, a PIL image or a uint8 array{hint}")


def _is_tensor(item: Any) -> bool:
    return type(item).__module__.split(".")[0] == "torch"


def _label(value: Any) -> str:
    return "" if value is None else str(value)


def _refuse_unused(unused: Collection[object], keys: Sequence[str]) -> None:
    """Raise ValueError if there are labels for keys that no image has."""
    if not unused:
        return
    named = ", ".join(map(repr, sorted(unused, key=str)[:_NUM_NAMED]))
    most = f" and {len(unused) - _NUM_NAMED} more" if len(unused) > _NUM_NAMED else ""
    there = f"the first keys are {', '.join(map(repr, keys[:_NUM_NAMED]))}" if keys else "there are no images"
    raise ValueError(f"labels: no image has the key {named}{most}; {there}")


def _relabelled(images: Iterator[EncodedImage], labels: Labels) -> Iterator[EncodedImage]:
    if isinstance(labels, Mapping):
        unused = set(labels)
        some: list[str] = []
        for image in images:
            unused.discard(image.key)
            if len(some) < _NUM_NAMED:
                some.append(image.key)
            yield EncodedImage(image.key, image.data, _label(labels.get(image.key, image.label)), image.error)
        _refuse_unused(unused, some)
        return
    for index, (image, label) in enumerate(itertools.zip_longest(images, labels)):
        if image is None or index >= len(labels):
            raise ValueError(
                f"{len(labels)} labels were given, but there are {'fewer' if image is None else 'more'} images"
            )
        yield EncodedImage(image.key, image.data, _label(label), image.error)
