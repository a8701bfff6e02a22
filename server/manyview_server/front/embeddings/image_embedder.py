"""Images of a request into rows: checked by their headers, embedded with whatever others ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from manyview.v1 import types_pb2
from manyview_server.errors import FailedPrecondition
from manyview_server.front.backends import Embedder
from manyview_server.front.datasets.image_check import check_embed
from manyview_server.front.limits import ImageLimits
from manyview_server.front.models.resolution import ResolvedModel
from manyview_server.messages.embedding import EmbedDone, RowFailed

MAX_KNOWN = 1_000
"""The most models whose number of features is remembered."""
SIDE = 32
BLACK = types_pb2.Image(data=b"P6\n%d %d\n255\n" % (SIDE, SIDE) + bytes(3 * SIDE * SIDE))
"""An image that any model takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is asked of each image."""

    model: ResolvedModel
    output: str
    l2_normalize: bool
    data_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedBatch:
    """The embedder's answer, and by row why there is no embedding."""

    done: EmbedDone
    errors: dict[int, RowFailed]


def check_output(model: ResolvedModel, output: str) -> None:
    """Raise FailedPrecondition NO_PROJECTION_HEAD where the model has not this output."""
    if output == "projection" and model.message.projection_dim == 0:
        message = f"{model.name} has no projection head; its output is the backbone's"
        raise FailedPrecondition("NO_PROJECTION_HEAD", message)


class ImageEmbedder:
    """Embeds what callers send."""

    def __init__(self, embedder: Embedder, limits: ImageLimits) -> None:
        self._embedder = embedder
        self._limits = limits
        self._num_features: dict[tuple[str, str], int] = {}

    async def embed(self, recipe: Recipe, images: Sequence[types_pb2.Image], time_left_s: float) -> EmbeddedBatch:
        """A row for each image; `time_left_s` 0 for no limit.

        Refused images travel on as empty ones, so that the worker's rows stay those of the caller.
        """
        refused, blobs = await asyncio.to_thread(self._checked, images)
        checkpoint, weights = recipe.model.checkpoint, recipe.model.weights_file
        done = await self._embedder.embed(
            model=recipe.model.name,
            checkpoint_dir=checkpoint.directory if checkpoint else "",
            backbone=recipe.model.message.backbone,
            weights_file=str(weights) if weights else "",
            output=recipe.output,
            l2_normalize=recipe.l2_normalize,
            data_type=recipe.data_type,
            time_left_s=time_left_s,
            images=blobs,
        )
        failed = {**{error.row: error for error in done.errors}, **refused}
        return EmbeddedBatch(done=done, errors={row: failed[row] for row in sorted(failed)})

    async def num_features(self, model: ResolvedModel, output: str) -> int:
        """Return the number of features of the model. A library's model does not state it, so it embeds one
        image."""
        if known := model.message.projection_dim if output == "projection" else model.message.feature_dim:
            return known
        if (key := (model.name, output)) not in self._num_features:
            recipe = Recipe(model=model, output=output, l2_normalize=False, data_type="float32")
            if len(self._num_features) >= MAX_KNOWN:
                self._num_features.clear()
            self._num_features[key] = (await self.embed(recipe, [BLACK], 0.0)).done.shape[1]
        return self._num_features[key]

    def _checked(self, images: Sequence[types_pb2.Image]) -> tuple[dict[int, RowFailed], tuple[bytes, ...]]:
        """Return the rows that are refused, and all files, with an empty one for each refused row."""
        checked = ((row, check_embed(image, self._limits)) for row, image in enumerate(images))
        refused = {row: RowFailed(row=row, reason=r.reason, message=r.message) for row, r in checked if r is not None}
        return refused, tuple(b"" if row in refused else image.data for row, image in enumerate(images))
