"""Embed the images of a request: check their headers, and send them to the embedder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from manyview.v1 import types_pb2
from manyview_server.front.backends import Embedder
from manyview_server.front.datasets.image_check import check_embed
from manyview_server.front.limits import ImageLimits
from manyview_server.messages.embedding import EmbedDone, EmbedRecipe, ModelKey, RowFailed
from manyview_server.system.sized_work import run_sized

MAX_KNOWN = 1_000
"""The most models whose number of features is remembered."""
SIDE = 32
BLACK = types_pb2.Image(data=b"P6\n%d %d\n255\n" % (SIDE, SIDE) + bytes(3 * SIDE * SIDE))
"""An image that every model can embed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedBatch:
    """The embedder's answer, and for each row without an embedding the reason."""

    done: EmbedDone
    errors: dict[int, RowFailed]


class ImageEmbedder:
    """Checks and embeds the images that callers send."""

    def __init__(self, embedder: Embedder, limits: ImageLimits) -> None:
        self._embedder = embedder
        self._limits = limits
        self._num_features: dict[ModelKey, int] = {}

    @property
    def is_starting(self) -> bool:
        """Is the embedding process starting right now?"""
        return self._embedder.is_starting

    async def embed(
        self, recipe: EmbedRecipe, images: Sequence[types_pb2.Image], time_left_s: float = 0.0
    ) -> EmbeddedBatch:
        """Embed each image; `time_left_s` 0 means no limit.

        A refused image goes to the worker as an empty one, so that the worker numbers the rows as the caller does.
        """
        refused, blobs = await run_sized(sum(len(image.data) for image in images), lambda: self._checked(images))
        done = await self._embedder.embed(recipe, blobs, time_left_s=time_left_s)
        failed = {**{error.row: error for error in done.errors}, **refused}
        return EmbeddedBatch(done=done, errors={row: failed[row] for row in sorted(failed)})

    async def num_features(self, model: ModelKey) -> int:
        """Return the number of features of a model that does not state it. It embeds one image, and remembers the
        number."""
        if model not in self._num_features:
            if len(self._num_features) >= MAX_KNOWN:
                self._num_features.clear()
            self._num_features[model] = (await self.embed(EmbedRecipe(model=model), [BLACK])).done.shape[1]
        return self._num_features[model]

    def _checked(self, images: Sequence[types_pb2.Image]) -> tuple[dict[int, RowFailed], tuple[bytes, ...]]:
        """Return the rows that are refused, and all files, with an empty one for each refused row."""
        checked = ((row, check_embed(image, self._limits)) for row, image in enumerate(images))
        refused = {row: RowFailed(row=row, reason=r.reason, message=r.message) for row, r in checked if r is not None}
        return refused, tuple(b"" if row in refused else image.data for row, image in enumerate(images))
