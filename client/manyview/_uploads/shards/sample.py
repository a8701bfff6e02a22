"""One sample of a shard: which images it has, and which of its texts labels each of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from manyview._uploads.shards.member_choice import MemberChoice
from manyview._uploads.shards.member_name import MemberName, joined
from manyview._uploads.shards.sample_text import SampleText


@dataclass(slots=True)
class SampleMembers:
    """The images of a sample by the rest of their names, and its texts, both in the order of the shard."""

    images: list[str] = field(default_factory=list)
    texts: list[SampleText] = field(default_factory=list)


class ShardSample:
    """The keys and labels of a sample's images.

    The key of an image is its name up to the last dot, or its whole name if it shares that with another image of the
    sample; JSON can name another key. If the caller chose the image, the key is the name of the sample. An image takes
    the label of the text that shares its name up to the last dot, else the label of the sample.
    """

    def __init__(self, name: str, members: SampleMembers, choice: MemberChoice, ignored_rank: int | None) -> None:
        self._name = name
        self._is_chosen = choice.image is not None
        self._num_of = Counter(members.images)
        ranks = {rest: choice.image_rank(MemberName(name, rest)) or 0 for rest in self._num_of}
        best = min(ranks.values(), default=0)
        self._rests = {rest: None for rest, rank in ranks.items() if rank == best}
        self._num_with_stem = Counter(MemberName(name, rest).stem for rest in self._rests)
        self._texts = defaultdict[str, list[SampleText]](list)
        for text in members.texts:
            if text.rank != ignored_rank:
                self._texts[text.stem].append(text)

    @property
    def has_images(self) -> bool:
        return bool(self._rests)

    def has_image(self, rest: str) -> bool:
        return rest in self._rests

    def is_repeated(self, rest: str) -> bool:
        """Does the shard have several images of this name?"""
        return self._num_of[rest] > 1

    def key(self, rest: str) -> str:
        """Return the key of an image."""
        key = self._name if self._is_chosen else joined(self._name, self._short(rest))
        named = next((text for text in self._of_image(rest, 0) if text.key), None)
        if named is None:
            return key
        return named.key if len(self._rests) == 1 else named.key + key[len(joined(self._name, named.stem)) :]

    def _short(self, rest: str) -> str:
        """Return the rest of a name without its type, if no other image has this name."""
        stem = MemberName(self._name, rest).stem
        return stem if self._num_with_stem[stem] == 1 and stem not in self._rests else rest

    def label(self, rest: str, occurrence: int) -> str:
        """Return the label of an image. A shard may have the same name several times; `occurrence` counts them."""
        return next((text.label for text in self._of_image(rest, occurrence) if text.label), "")

    def error(self, rest: str) -> str:
        """Return why the texts of an image cannot be read, or ""."""
        return next((text.error for text in self._of_image(rest, 0) if text.error), "")

    def uses(self, stem: str, rank: int) -> bool:
        """Does a text give an image its label, its key or its error?"""
        return (stem, rank) in self._used

    @cached_property
    def _used(self) -> set[tuple[str, int]]:
        found = set[tuple[str, int]]()
        for rest in self._rests:
            texts = list(self._of_image(rest, 0))
            labelling = next((text for text in texts if text.label), None)
            found.update((text.stem, text.rank) for text in texts if text is labelling or text.key or text.error)
        return found

    @cached_property
    def _of_all(self) -> list[SampleText]:
        """The texts of the whole sample: those with its name, and all texts if it has a single image."""
        stems = sorted(self._texts) if len(self._rests) == 1 else [""]
        return [text for stem in stems for text in self._texts.get(stem, ())]

    def _of_image(self, rest: str, occurrence: int) -> Iterator[SampleText]:
        """Yield the texts of an image, the most important one first."""
        stem = MemberName(self._name, rest).stem
        if stem:
            yield from _ranked(self._texts.get(stem, ()), occurrence)
        yield from _ranked(self._of_all, occurrence)


def _ranked(texts: Iterable[SampleText], occurrence: int) -> Iterator[SampleText]:
    """Yield one text of each name and rank: the one that occurs as often as the image, or the last one."""
    same = defaultdict[tuple[bool, int, str], list[SampleText]](list)
    for text in texts:
        same[text.stem != "", text.rank, text.stem].append(text)
    for key in sorted(same):
        yield same[key][min(occurrence, len(same[key]) - 1)]
