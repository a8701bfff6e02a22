"""Images that took too long to decode, remembered by their content so that none of them costs a process twice."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable

from manyview_server.store.images.shards import image_id_of

MAX_REMEMBERED = 65_536


class SlowImages:
    """A bounded set of image ids; the oldest are forgotten. The embedder and the previewer share one."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, None] = OrderedDict()

    def add(self, image_id: int) -> None:
        """Remember an image."""
        self._known[image_id] = None
        self._known.move_to_end(image_id)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    def rows(self, image_ids: Iterable[int]) -> tuple[int, ...]:
        """Return the positions in `image_ids` of the images that are remembered."""
        return tuple(row for row, image_id in enumerate(image_ids) if image_id in self._known)


def content_id(data: bytes) -> int:
    """Return the id that a data set gives to an image of these bytes. It hashes them: call it off the event loop."""
    return image_id_of(hashlib.sha256(data).digest())
