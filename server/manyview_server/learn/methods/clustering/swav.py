"""SwAV: every view predicts the prototypes to which the other whole views of its image are assigned.

Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", arXiv 2006.09882.
Shapes: V views, G of them whole (o pixels) and assigned, B batch, D feature, P projection, K prototypes, Q queue slots.
"""

# ruff: noqa: RUF009 - the fields' defaults are frozen
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from manyview_server.configuration import setting
from manyview_server.learn import losses
from manyview_server.learn.encoder import build_encoder
from manyview_server.learn.methods import fields
from manyview_server.learn.methods.method import Carry, Method, StepOutput, Views
from manyview_server.learn.modules import heads
from manyview_server.learn.modules.memory_bank import MemoryBank, default_size
from manyview_server.learn.modules.prototypes import UnitPrototypes, usage
from manyview_server.learn.schedules import Moment
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views.recipe import ViewSettings


@dataclass(frozen=True, kw_only=True)
class SwAVSettings(TrainSettings):
    """SwAV (arXiv 2006.09882): views predict one another's assignment to prototypes that are all used alike."""

    min_views: ClassVar[int] = 2
    max_views: ClassVar[int] = 8
    multi_crop: ClassVar[bool] = True

    method: Literal["swav"] = setting("swav", "Self-supervised method.")
    temperature: float = setting(0.1, "Temperature of the predictions.", minimum=0.001, maximum=100)
    projection_hidden_dim: int | None = fields.projection_hidden_dim()
    projection_dim: int = fields.projection_dim(128)
    num_prototypes: int = fields.num_prototypes(512)
    frozen_prototypes_epochs: float = fields.frozen_prototypes_epochs(1.0)
    sinkhorn_epsilon: float = setting(
        0.05, "How soft the assignments are: the smaller, the nearer to one prototype each.", minimum=0.001, maximum=100
    )
    sinkhorn_iterations: int = setting(
        3, "Rounds in which the assignments are made to use all prototypes alike.", minimum=1, maximum=100
    )
    queue_size: int | None = setting(
        None,
        "Earlier projections, for each whole view, that share the prototypes with a batch's; null chooses it from the "
        "data set, 0 means none.",
        minimum=0,
        maximum=1_048_576,
        fixed=True,
    )
    queue_start_epoch: float = setting(
        1.0, "Epochs after which the queue takes part.", minimum=0, maximum=100_000, needs=("queue_size",)
    )
    views: ViewSettings = fields.views("swav")

    def for_num_images(self, num_images: int) -> Self:
        settings = super().for_num_images(num_images)
        if settings.queue_size is not None:
            return settings
        assert settings.batch_size is not None
        return dataclasses.replace(settings, queue_size=default_size(num_images, settings.batch_size))


class SwAV(Method):
    """Algorithm 1 of the paper with the multi-crop of section 3.2 and the queue of section 4.

    If `prototypes_used` goes to 1, all images have the same projection. A loss that stays at ln K means that nothing
    was learned.

    Differs from the paper: prototypes are scaled back to length 1 after each update and not before each pass, which is
    the same for the loss.
    Differs from the paper: the queue fills from the first step on, so that it holds the newest projections when it is
    first used. Slots that were never filled take no part.
    Differs from the paper: the default is fewer prototypes, for small data sets.
    """

    def __init__(self, settings: SwAVSettings) -> None:
        super().__init__()
        assert settings.queue_size is not None
        self.settings = settings
        self.encoder = build_encoder(settings)
        self.projection_dim = settings.projection_dim
        self.head = heads.swav_head(self.encoder.feature_dim, settings.projection_hidden_dim, self.projection_dim)
        self.chosen = {"projection_hidden_dim": self.head.hidden_dim}
        self.prototypes = UnitPrototypes(self.projection_dim, settings.num_prototypes)
        sizes = [(pipeline.size(settings.image_size), pipeline.count) for pipeline in settings.views.pipelines]
        num_whole = sum(count for size, count in sizes if size == settings.image_size)
        # A row holds an image's G projections side by side, so that each whole view has its own queue: (Q, GP).
        self.queue = MemoryBank(settings.queue_size, num_whole * self.projection_dim) if settings.queue_size else None

    def forward_loss(self, views: Views, image_ids: Tensor, moment: Moment) -> StepOutput:
        whole, B = views[0], len(image_ids)  # (G, B, 3, o, o)
        h = torch.cat([self.encoder(each.flatten(0, 1)) for each in views])  # (VB, D), one pass for each size
        z = F.normalize(self.head(h).float(), dim=1)  # (VB, P)
        scores = self.prototypes(z).unflatten(0, (-1, B))  # (V, B, K)
        G = len(whole)
        queue_scores, num_valid = self._queue_scores(G, moment)
        loss = losses.swav(
            scores[:G],
            scores[G:],
            queue_scores=queue_scores,
            num_valid=num_valid,
            temperature=self.settings.temperature,
            epsilon=self.settings.sinkhorn_epsilon,
            iterations=self.settings.sinkhorn_iterations,
        )
        of_whole = z[: G * B].detach()
        return StepOutput(
            loss=loss,
            representation=h[: G * B].detach(),
            projection=of_whole,
            scalars=usage(scores[:G].detach() / self.settings.temperature),
            carry={"keys": of_whole.view(G, B, -1).transpose(0, 1).flatten(1), "image_ids": image_ids},  # keys (B, GP)
        )

    def before_update(self, moment: Moment) -> None:
        if moment.epoch < self.settings.frozen_prototypes_epochs:
            self.prototypes.weight.grad = None

    def after_step(self, moment: Moment, accept: Tensor, carry: Carry) -> None:
        self.prototypes.renormalise(accept)
        if self.queue is not None:
            self.queue.enqueue(carry["keys"], carry["image_ids"], accept)

    @torch.no_grad()
    def _queue_scores(self, G: int, moment: Moment) -> tuple[Tensor | None, Tensor | None]:
        """Return the scores (G, Q, K) of the queue, and the number of its slots that are filled."""
        if self.queue is None or moment.epoch < self.settings.queue_start_epoch:
            return None, None
        keys = self.queue.keys.view(self.queue.size, G, -1).transpose(0, 1)  # (G, Q, P)
        return self.prototypes(keys), self.queue.filled
