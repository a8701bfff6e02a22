"""DINO: the student predicts from every view the output of its own slow teacher for the whole views.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", arXiv 2104.14294.
Shapes: V views, T of them whole (o pixels) and seen by the teacher, B batch, D feature, P projection, K prototypes.
"""

# ruff: noqa: RUF009 - the fields' defaults are frozen
from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from manyview_server.configuration import setting
from manyview_server.learn import losses
from manyview_server.learn.encoder import build_encoder
from manyview_server.learn.methods import fields
from manyview_server.learn.methods.method import Carry, Method, StepOutput, Views
from manyview_server.learn.modules import heads
from manyview_server.learn.modules.ema import make_teacher, update_teacher
from manyview_server.learn.modules.prototypes import WeightNormalised, usage
from manyview_server.learn.schedules import Moment, cosine_at, linear
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.views.recipe import ViewSettings


@dataclass(frozen=True, kw_only=True)
class DINOSettings(TrainSettings):
    """DINO (arXiv 2104.14294): the student predicts its teacher's centred and sharpened outputs for other views."""

    min_views: ClassVar[int] = 2
    max_views: ClassVar[int] = 8
    multi_crop: ClassVar[bool] = True

    method: Literal["dino"] = setting("dino", "Self-supervised method.")
    projection_hidden_dim: int | None = fields.projection_hidden_dim(2048)
    projection_dim: int = fields.projection_dim(256)
    projection_batch_norm: bool = fields.projection_batch_norm(True, "the paper's has none")
    num_prototypes: int = fields.num_prototypes(2048)
    frozen_prototypes_epochs: float = fields.frozen_prototypes_epochs(1.0)
    student_temperature: float = setting(0.1, "Temperature of the student's outputs.", minimum=0.001, maximum=100)
    teacher_temperature: float = setting(
        0.04, "Temperature of the teacher's outputs: the lower, the surer it is.", minimum=0.001, maximum=100
    )
    teacher_temperature_start: float = setting(
        0.02,
        "Temperature of the teacher's outputs at the start of the warm-up.",
        minimum=0.001,
        maximum=100,
        needs=("teacher_temperature_warmup_epochs",),
    )
    teacher_temperature_warmup_epochs: float = setting(
        0.0, "Epochs until teacher_temperature is reached, along a line; 0 means none.", minimum=0, maximum=100_000
    )
    center_momentum: float = setting(
        0.9, "Share of the center of the teacher's outputs that stays at each step.", minimum=0, maximum=1
    )
    ema_momentum: float = fields.ema_momentum(0.99)
    ema_momentum_end: float | None = fields.ema_momentum_end(1.0)
    views: ViewSettings = fields.views("dino")


class DINO(Method):
    """Algorithm 1 of the paper with the multi-crop of section 3.1.

    Centring keeps one prototype from winning for all images, and sharpening keeps all prototypes from being equal
    (section 5.3). If `prototype_entropy` stays at ln K, or `prototypes_used` goes to 1, this balance is lost.

    Differs from the paper: the head has batch norms unless ``projection_batch_norm`` is off.
    Differs from the paper: the directions of the last layer always have length 1 (its ``norm_last_layer``).
    Differs from the paper: the defaults are fewer prototypes and a faster teacher, for small data sets and short
    trainings.
    """

    center: Tensor  # (K,)

    def __init__(self, settings: DINOSettings) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = build_encoder(settings)
        self.projection_dim = settings.projection_dim
        self.head = heads.dino_head(
            self.encoder.feature_dim,
            settings.projection_hidden_dim,
            self.projection_dim,
            batch_norm=settings.projection_batch_norm,
        )
        self.chosen = {"projection_hidden_dim": self.head.hidden_dim}
        self.prototypes = WeightNormalised(self.projection_dim, settings.num_prototypes)
        parts = {"encoder": self.encoder, "head": self.head, "prototypes": self.prototypes}
        self.teacher = make_teacher(nn.Sequential(OrderedDict(parts)))
        self.register_buffer("center", torch.zeros(settings.num_prototypes))

    def forward_loss(self, views: Views, image_ids: Tensor, moment: Moment) -> StepOutput:
        whole, B = views[0], len(image_ids)  # (T, B, 3, o, o)
        h = torch.cat([self.encoder(each.flatten(0, 1)) for each in views])  # (VB, D), one pass for each size
        z = self.head(h)  # (VB, P)
        student = self.prototypes(z).unflatten(0, (-1, B))  # (V, B, K)
        with torch.no_grad():
            teacher = self.teacher(whole.flatten(0, 1)).unflatten(0, (-1, B))  # (T, B, K)
        temperature = self._teacher_temperature(moment)
        loss = losses.dino(
            student,
            teacher,
            self.center,
            student_temperature=self.settings.student_temperature,
            teacher_temperature=temperature,
        )
        of_whole = slice(len(whole) * B)
        return StepOutput(
            loss=loss,
            representation=h[of_whole].detach(),
            projection=z[of_whole].detach(),
            scalars=usage((teacher - self.center) / temperature),
            carry={"mean_output": teacher.mean((0, 1))[None]},  # (1, K)
        )

    def before_update(self, moment: Moment) -> None:
        if moment.epoch < self.settings.frozen_prototypes_epochs:
            self.prototypes.weight.grad = None

    def after_step(self, moment: Moment, accept: Tensor, carry: Carry) -> None:
        momentum = cosine_at(moment, self.settings.ema_momentum, self.settings.ema_momentum_end)
        for name, part in self.teacher.named_children():
            update_teacher(part, self.get_submodule(name), momentum, accept)
        losses.update_center(self.center, carry["mean_output"].mean(0), self.settings.center_momentum, accept)

    def _teacher_temperature(self, moment: Moment) -> float:
        start, end = self.settings.teacher_temperature_start, self.settings.teacher_temperature
        num_steps = round(self.settings.teacher_temperature_warmup_epochs * moment.steps_per_epoch)
        return linear(moment.step, 1 + num_steps, start, end)
