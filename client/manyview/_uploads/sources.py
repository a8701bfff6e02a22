"""The caller's images, of any kind, as encoded images: one at a time, read when they are needed.

Files are sent unchanged. `pixels.encoding` says how arrays and PIL images travel.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from manyview._types.images import ImageError
from manyview._uploads import shards
from manyview._uploads.encoded_image import EncodedImage, read_file, readable_text, too_large
from manyview._uploads.folders import list_paths
from manyview._uploads.labels.label_rule import LabelRule, Labels, rule_for
from manyview._uploads.pixels import arrays, encoding, pil_images
from manyview._uploads.shards.member_choice import MemberChoice
from manyview._uploads.shards.shard_paths import expand
from manyview._uploads.skipped import SkippedCount


class ImageSource:
    """Images that are pulled one by one.

    `identity` names them before they are read, if that is possible (folders, lists of paths, shards). The same names
    are the same upload. Such a source can be iterated again, other sources only once. `total` is None if it is unknown.
    `skipped` counts the files that were found and are not images to send; it is complete when an iteration ends.
    """

    def __init__(
        self,
        pull: Callable[[SkippedCount], Iterator[EncodedImage]],
        *,
        identity: Sequence[str] | None,
        total: int | None,
        skipped: SkippedCount | None = None,
    ):
        self._pull = pull
        self._listed = skipped or SkippedCount()
        self.identity = identity
        self.total = total
        self.skipped = self._listed.copy()

    def __iter__(self) -> Iterator[EncodedImage]:
        self.skipped = self._listed.copy()
        return self._pull(self.skipped)

    def labelled(self, rule: LabelRule) -> ImageSource:
        """Return a source of the same images with the labels that `rule` gives them."""
        identity = self.identity if rule.identity is None or self.identity is None else [*self.identity, rule.identity]
        return ImageSource(
            lambda skipped: rule.apply(self._pull(skipped)),
            identity=identity,
            total=self.total,
            skipped=self._listed,
        )


def open_source(
    images: Any, *, max_image_bytes: int, labels: Labels | None = None, members: MemberChoice | None = None
) -> ImageSource:
    """Return the caller's images as a source. Folders and `labels` are read now, and images later.

    `images`: a folder, a WebDataset shard, a path, a pattern of paths, bytes, a binary file, a PIL image, an array
    (H, W, 3), (H, W), with an alpha channel (H, W, 4) or (H, W, 2), or (N, H, W, C), or an iterable of these, of
    (image, label) pairs or of mappings with "image" and perhaps "label" and "key". `labels`: see `Labels`. `members`
    chooses the members of shards. Raises FileNotFoundError, ValueError (a folder without images, wrong shapes, labels
    for keys that no image has) or TypeError. Each names the item that is wrong.
    """
    if isinstance(images, ImageSource):
        return images
    rule = rule_for(labels)
    source = _open(images, max_image_bytes, rule, members or MemberChoice())
    rule.check(source.identity, source.total)
    return source.labelled(rule)


def _open(images: Any, limit: int, rule: LabelRule, members: MemberChoice) -> ImageSource:
    if isinstance(images, str | os.PathLike):
        return _from_paths(expand(images), limit, rule, members)
    if isinstance(images, list | tuple) and images and all(isinstance(item, str | os.PathLike) for item in images):
        return _from_paths([path for item in images for path in expand(item)], limit, rule, members)
    if isinstance(images, Mapping):
        raise TypeError("images must not be a mapping: pass its values, or its items as (image, label) pairs")
    if isinstance(images, bytes | bytearray | memoryview) or pil_images.is_pil(images) or _is_open_file(images):
        images = [images]
    elif arrays.is_array(images):
        images = arrays.split(images)
    if not isinstance(images, Iterable) and not hasattr(images, "__getitem__"):
        raise TypeError(f"images must be a path, bytes, pixels or an iterable of these, not {type(images).__name__}")
    members.refuse()
    total = len(images) if hasattr(images, "__len__") else None
    return ImageSource(lambda skipped: _from_items(images, limit, rule, skipped), identity=None, total=total)


def _from_paths(paths: Sequence[Path], limit: int, rule: LabelRule, members: MemberChoice) -> ImageSource:
    """Return a source of files. Folders are listed now. Files are read, and shards opened, when they are needed."""
    listed = SkippedCount()
    files = list_paths(paths, listed)
    has_shards = any(file.is_shard for file in files)
    if not has_shards:
        members.refuse()

    def pull(skipped: SkippedCount) -> Iterator[EncodedImage]:
        for file in files:
            if file.error is not None:
                yield EncodedImage(file.key, b"", file.label, file.error)
            elif file.is_shard:
                yield from shards.samples(file.path, file.key, skipped, max_image_bytes=limit, choice=members)
            else:
                yield read_file(file.path, file.key, rule.label_of_file(file.key, file.label), limit)

    total = None if has_shards else len(files)
    identity = [*(file.key for file in files), *members.identity]
    return ImageSource(pull, identity=identity, total=total, skipped=listed)


def _checked(key: str, data: bytes, label: str, limit: int) -> EncodedImage:
    return too_large(key, label, len(data), limit) if len(data) > limit else EncodedImage(key, data, label)


def _from_items(items: Iterable[Any], limit: int, rule: LabelRule, skipped: SkippedCount) -> Iterator[EncodedImage]:
    for index, item in enumerate(items):
        if isinstance(item, str | os.PathLike) and shards.is_shard(path := Path(item)):
            key = readable_text(path.as_posix())
            yield from shards.samples(path, key, skipped, max_image_bytes=limit, choice=MemberChoice())
            continue
        key, label = f"{index:08d}", None
        if isinstance(item, Mapping):
            item, label, key = _from_mapping(item, key)
        elif isinstance(item, tuple):
            item, label = _from_pair(item, index)
        try:
            text = rule.label_of_item(label, f"image {key}")
        except ValueError as error:
            yield EncodedImage(key, b"", "", ImageError(reason="LABEL_INVALID", message=str(error)))
        else:
            yield _from_item(item, key, text, limit, index)


def _from_mapping(item: Mapping[str, Any], key: str) -> tuple[Any, Any, str]:
    if "image" not in item:
        raise TypeError(f"image {key} is a mapping that lacks the field 'image'; it has {', '.join(map(str, item))}")
    return item["image"], item.get("label"), str(item.get("key", key))


def _from_pair(item: tuple[Any, ...], index: int) -> tuple[Any, Any]:
    if len(item) != 2:
        raise TypeError(f"image {index} must be a pair (image, label), not a tuple of {len(item)}")
    return item[0], item[1]


def _from_item(item: Any, key: str, label: str, limit: int, index: int) -> EncodedImage:
    if isinstance(item, str | os.PathLike):
        return read_file(Path(item), readable_text(Path(item).as_posix()), label, limit)
    if isinstance(item, bytes | bytearray | memoryview):
        return _checked(key, bytes(item), label, limit)
    if pil_images.is_pil(item) or arrays.is_array(item):
        return _from_pixels(item, key, label, limit, index)
    if _is_open_file(item):
        return _checked(key, _read_open(item, index), label, limit)
    hint = "; pass tensor.permute(1, 2, 0).numpy()" if "torch" in sys.modules and _is_tensor(item) else ""
    found = f"{type(item).__name__} is not a path, bytes, a binary file, a PIL image or an array"
    raise TypeError(f"image {index}: {found}{hint}")


def _from_pixels(item: Any, key: str, label: str, limit: int, index: int) -> EncodedImage:
    try:
        encoded = encoding.encode(item, limit)
    except ValueError as error:
        raise ValueError(f"image {index}: {error}") from error
    image = _checked(key, encoded.data, label, limit)
    return replace(image, is_recompressed=encoded.is_recompressed)


def _is_open_file(item: Any) -> bool:
    return callable(getattr(item, "read", None))


def _read_open(file: Any, index: int) -> bytes:
    """Return the contents of a file that the caller opened, from its start if it can go back there, as PIL does."""
    if callable(getattr(file, "seekable", None)) and file.seekable():
        file.seek(0)
    data = file.read()
    if not isinstance(data, bytes):
        raise TypeError(f"image {index}: the file was opened as text: open it with mode 'rb'")
    return data


def _is_tensor(item: Any) -> bool:
    return type(item).__module__.split(".")[0] == "torch"
