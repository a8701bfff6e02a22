"""The first reading of a shard: the names of its members, its labels, and what its links lead to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from manyview._uploads.shards.link_targets import LinkTargets, normal, target_of
from manyview._uploads.shards.member_choice import KEY_RANK, TEXT_RANK, MemberChoice
from manyview._uploads.shards.member_name import MemberName, is_hidden, split_name
from manyview._uploads.shards.sample import SampleMembers, ShardSample
from manyview._uploads.shards.sample_text import SampleText, looks_like_class, read_text
from manyview._uploads.shards.tar_members import ShardUnreadable, read_members
from manyview._uploads.signatures import HEAD_BYTES, READ_FORMATS, image_format

Read = Callable[[int], bytes]


class ShardIndex:
    """All samples of a shard, without their images: some hundred bytes for each.

    Texts (`.txt`) are labels only if all texts of the shard look like names of classes. Raises OSError if the file
    cannot be opened. A damaged shard has the samples before the damage.
    """

    def __init__(self, path: Path, choice: MemberChoice) -> None:
        self._path = path
        self._choice = choice
        self._samples: dict[str, SampleMembers] = {}
        self._last: tuple[str, ShardSample] | None = None
        links: dict[str, tuple[str, str]] = {}
        with suppress(ShardUnreadable):
            for member in read_members(path):
                if is_hidden(member.name):
                    continue
                if member.is_file:
                    self._add(member.name, member.num_bytes, member.read)
                elif member.link_target:
                    links[member.name] = (normal(member.name), target_of(member))
        self.targets = LinkTargets(path, dict(links.values())) if links else None
        for name in links:
            if self.targets is not None and (num_bytes := self.targets.num_bytes(name)) is not None:
                self._add(name, num_bytes, partial(self.targets.read, name))
        with_images = (members for members in self._samples.values() if members.images)
        self._texts_are_captions = any(text.is_caption for members in with_images for text in members.texts)

    def close(self) -> None:
        if self.targets is not None:
            self.targets.close()

    def sample(self, name: str) -> ShardSample:
        """Return a sample by its name."""
        if self._last is None or self._last[0] != name:
            members = self._samples.get(name, SampleMembers())
            ignored = TEXT_RANK if self._texts_are_captions else None
            self._last = name, ShardSample(name, members, self._choice, ignored)
        return self._last[1]

    def image_format(self, name: MemberName, read: Read) -> str | None:
        """Return the format of an image that its name does not show, unless the caller has chosen the image."""
        return image_format(read(HEAD_BYTES), name.type) if self._choice.image is None else None

    def _add(self, full_name: str, num_bytes: int, read: Read) -> None:
        name = split_name(full_name)
        sample = self._samples.setdefault(name.sample, SampleMembers())
        rank = self._choice.text_rank(name)
        if self._choice.image_rank(name) is not None:
            sample.images.append(name.rest)
        elif rank is None:
            if self.image_format(name, read) in READ_FORMATS:
                sample.images.append(name.rest)
        else:
            sample.texts.append(self._text(name, rank, num_bytes, read, f"{self._path}:{full_name}"))

    def _text(self, name: MemberName, rank: int, num_bytes: int, read: Read, where: str) -> SampleText:
        # A chosen label may look as it likes, and the user does not care for the JSON beside it.
        may_be_caption = self._choice.label is None and rank == TEXT_RANK
        try:
            label, key = read_text(name.type == "json", num_bytes, read, where)
        except ShardUnreadable:
            raise
        except ValueError as error:
            is_wanted = not may_be_caption and rank != KEY_RANK
            return SampleText(name.stem, rank, error=str(error) if is_wanted else "", is_caption=may_be_caption)
        if may_be_caption and not looks_like_class(label):
            return SampleText(name.stem, rank, is_caption=True)
        return SampleText(name.stem, rank, label if rank != KEY_RANK else "", key)
