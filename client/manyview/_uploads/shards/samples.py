"""The images of a shard, with their keys and labels, and an account of its other members."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from manyview._types.images import ImageError
from manyview._types.words import SkipReason
from manyview._uploads.encoded_image import EncodedImage, readable_text, too_large, unreadable
from manyview._uploads.shards.member_choice import MemberChoice
from manyview._uploads.shards.member_name import MemberName, is_hidden, joined, split_name
from manyview._uploads.shards.shard_index import Read, ShardIndex
from manyview._uploads.shards.tar_members import ShardUnreadable, TarMember, read_members
from manyview._uploads.skipped import SkippedCount


def samples(
    path: Path, key: str, skipped: SkippedCount, *, max_image_bytes: int, choice: MemberChoice
) -> Iterator[EncodedImage]:
    """Yield the images of a shard in its order. An image that cannot be sent has an error. Every other member is a
    label of an image, or `skipped` counts it with the reason.

    A shard that is damaged or ends early gives the images before the damage, and last an error in the place of an image
    (SHARD_UNREADABLE or UNREADABLE_FILE), whose key is that of the shard. `choice` says which members are images and
    labels.
    """
    try:
        with closing(ShardIndex(path, choice)) as index:
            yield from _Reading(path, index, choice, skipped, max_image_bytes).images()
    except ShardUnreadable as error:
        yield _refused(key, "SHARD_UNREADABLE", str(error))
    except OSError as error:
        yield EncodedImage(key, b"", error=unreadable(error))


class _Reading:
    """The second reading of a shard."""

    def __init__(self, path: Path, index: ShardIndex, choice: MemberChoice, skipped: SkippedCount, limit: int) -> None:
        self._path = path
        self._index = index
        self._choice = choice
        self._skipped = skipped
        self._limit = limit
        self._occurrences = Counter[str]()

    def images(self) -> Iterator[EncodedImage]:
        for member in read_members(self._path):
            found = self._take(member)
            if isinstance(found, EncodedImage):
                yield found
            elif found is not None:
                self._skipped.add(found, f"{self._path}:{member.name}")

    def _take(self, member: TarMember) -> EncodedImage | SkipReason | None:
        """Return the image in a member, or why it is passed over, or None if it is a label that an image takes."""
        if is_hidden(member.name):
            return "HIDDEN"
        name, num_bytes, read = split_name(member.name), member.num_bytes, member.read
        if member.link_target:
            targets = self._index.targets
            target_bytes = None if targets is None else targets.num_bytes(member.name)
            if targets is None or target_bytes is None:
                return "LINK_IN_SHARD"
            num_bytes, read = target_bytes, partial(targets.read, member.name)
        sample = self._index.sample(name.sample)
        if member.is_file or member.link_target:
            if sample.has_image(name.rest):
                return self._image(name, num_bytes, read)
            rank = self._choice.text_rank(name)
            if rank is None and self._index.image_format(name, read) is not None:
                return "FORMAT_NOT_READ"
            if rank is not None and sample.uses(name.stem, rank):
                return None
        if not sample.has_images:
            return "NO_IMAGE"
        return "CAPTION" if name.type == "txt" else "OTHER_MEMBER"

    def _image(self, name: MemberName, num_bytes: int, read: Read) -> EncodedImage:
        sample, full_name = self._index.sample(name.sample), joined(name.sample, name.rest)
        occurrence = self._occurrences[full_name]
        if sample.is_repeated(name.rest):
            self._occurrences[full_name] += 1
        key, label = readable_text(sample.key(name.rest)), sample.label(name.rest, occurrence)
        if error := sample.error(name.rest):
            return _refused(key, "LABEL_INVALID", error)
        if num_bytes == 0:
            return _refused(key, "IMAGE_EMPTY", f"{self._path}:{full_name} has no bytes")
        if num_bytes > self._limit:
            return too_large(key, label, num_bytes, self._limit)
        return EncodedImage(key, read(num_bytes), label)


def _refused(key: str, reason: str, message: str) -> EncodedImage:
    return EncodedImage(key, b"", error=ImageError(reason=reason, message=readable_text(message)))
