"""The members of a shard that are images, and those that hold labels."""

from __future__ import annotations

from dataclasses import dataclass

from manyview._uploads.shards.member_name import MemberName
from manyview._uploads.signatures import SUFFIXES

_LABEL_TYPES = ("cls", "json", "txt")
"""If a sample has several, the first one labels it."""
TEXT_RANK = _LABEL_TYPES.index("txt")
KEY_RANK = 1000
"""JSON beside a chosen label can name the key alone."""


@dataclass(frozen=True)
class MemberChoice:
    """Names of members after the first dot, such as `jpg` or `input.png`. Several are separated by semicolons, as in
    WebDataset: the first one that a sample has is taken. None takes every image, and finds the label itself."""

    image: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        for field, value in (("image", self.image), ("label", self.label)):
            if value is not None and not (isinstance(value, str) and all(_names(value))):
                raise ValueError(f"{field} must name members of a shard, such as 'jpg' or 'jpg;png', not {value!r}")

    @property
    def identity(self) -> tuple[str, ...]:
        """Names of the choice, for uploads: the same files with another choice are another upload."""
        named = (("image", self.image), ("label", self.label))
        return tuple(f"{field}={value}" for field, value in named if value is not None)

    def refuse(self) -> None:
        """Raise ValueError if there is a choice. Call it if there are no paths of shards."""
        if self.identity:
            hint = "; `labels` gives labels to images" if self.label is not None else ""
            raise ValueError(
                f"{' and '.join(self.identity)} chooses members of shards, but no path of a shard was given{hint}"
            )

    def image_rank(self, name: MemberName) -> int | None:
        """Return None for a member that is no image. A sample has only images of its lowest rank."""
        if self.image is not None:
            return _rank(_names(self.image), name.rest)
        return 0 if name.type in SUFFIXES else None

    def text_rank(self, name: MemberName) -> int | None:
        """Return None for a member that holds neither a label nor a key. The lowest rank labels the sample."""
        if self.label is None:
            return _rank(_LABEL_TYPES, name.type)
        rank = _rank(_names(self.label), name.rest)
        return KEY_RANK if rank is None and name.type == "json" else rank


def _names(value: str) -> tuple[str, ...]:
    return tuple(name.strip().lower().lstrip(".") for name in value.split(";"))


def _rank(names: tuple[str, ...], name: str) -> int | None:
    return names.index(name.lower()) if name.lower() in names else None
