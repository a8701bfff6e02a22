"""The labels of images, as callers give them."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from manyview._uploads.encoded_image import EncodedImage

_NUM_NAMED = 3
"""The most keys that an error names."""
Labels = Sequence[str | int] | Mapping[str, str | int]


def label_text(value: Any) -> str:
    return "" if value is None else str(value)


def refuse_unused(unused: Collection[object], keys: Sequence[str]) -> None:
    """Raise ValueError if there are labels for keys that no image has."""
    if not unused:
        return
    named = ", ".join(map(repr, sorted(unused, key=str)[:_NUM_NAMED]))
    most = f" and {len(unused) - _NUM_NAMED} more" if len(unused) > _NUM_NAMED else ""
    there = f"the first keys are {', '.join(map(repr, keys[:_NUM_NAMED]))}" if keys else "there are no images"
    raise ValueError(f"labels: no image has the key {named}{most}; {there}")


def relabelled(images: Iterator[EncodedImage], labels: Labels) -> Iterator[EncodedImage]:
    if isinstance(labels, Mapping):
        unused = set(labels)
        some: list[str] = []
        for image in images:
            unused.discard(image.key)
            if len(some) < _NUM_NAMED:
                some.append(image.key)
            yield replace(image, label=label_text(labels.get(image.key, image.label)))
        refuse_unused(unused, some)
        return
    for index, (image, label) in enumerate(itertools.zip_longest(images, labels)):
        if image is None or index >= len(labels):
            raise ValueError(
                f"{len(labels)} labels were given, but there are {'fewer' if image is None else 'more'} images"
            )
        yield replace(image, label=label_text(label))
