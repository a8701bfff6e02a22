"""Everything a training job can be told, with defaults, bounds and a sentence each.

`TrainSettings` holds what all methods share; each method has one subclass with its own defaults and fields. `resolve`
turns a method's name and a nested mapping of overrides into a checked instance, or says all that is wrong with them.
"""

# ruff: noqa: RUF009 - `setting` and `changed` make dataclass fields, and their defaults are frozen
from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from manyview_server.learn import schema
from manyview_server.learn.backbones import BACKBONES
from manyview_server.learn.evaluation import EvaluationSettings
from manyview_server.learn.optimizers import OptimizerSettings
from manyview_server.learn.schema import SettingsError, Violation, changed, setting
from manyview_server.learn.views.recipe import (
    BlurSettings,
    ColorJitterSettings,
    CropSettings,
    GrayscaleSettings,
    HorizontalFlipSettings,
    NormalizeSettings,
    SolarizeSettings,
    ViewSettings,
)

__all__ = [
    "METHOD_SETTINGS",
    "BlurSettings",
    "ColorJitterSettings",
    "CropSettings",
    "EvaluationSettings",
    "GrayscaleSettings",
    "HorizontalFlipSettings",
    "MoCoSettings",
    "NormalizeSettings",
    "OptimizerSettings",
    "SettingsError",
    "SimCLRSettings",
    "SolarizeSettings",
    "TrainSettings",
    "ViewSettings",
    "Violation",
    "from_json",
    "resolve",
    "to_json",
]


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What all methods share. Use a method's subclass, or `resolve`.

    Raises:
        SettingsError: with every violation, of one field or between fields.
    """

    method: str = setting("", "Self-supervised method.")
    backbone: str = setting(
        "resnet18", "Network whose features are the embedding.", choices=tuple(BACKBONES), fixed=True
    )
    backbone_width: float = setting(
        1.0, "Multiplies the number of channels of the backbone.", exclusive_minimum=0, maximum=8, fixed=True
    )
    stem: Literal["auto", "imagenet", "small"] = setting(
        "auto", "First layers of the backbone; auto means small below 64 pixels and imagenet from there.", fixed=True
    )
    image_size: int = setting(224, "Width and height of a view, in pixels.", minimum=8, maximum=1024)
    decode_size: int | None = setting(
        None,
        "Width and height at which decoded images are kept, in pixels; null chooses it from image_size.",
        minimum=8,
        maximum=2048,
    )
    batch_size: int | None = setting(
        None, "Images in a step; null chooses it from the data set.", minimum=2, maximum=65_536
    )
    epochs: int = setting(100, "Passes over the data set.", minimum=1, maximum=100_000)
    max_steps: int | None = setting(
        None, "Steps after which training ends, if the epochs have not ended it before.", minimum=1, maximum=10**9
    )
    seed: int = setting(0, "Seed of the weights, the views and the order of images.", minimum=0, maximum=2**53 - 1)
    temperature: float = setting(0.5, "Temperature of the contrastive loss.", minimum=0.01, maximum=100)
    projection_hidden_dim: int | None = setting(
        None,
        "Width of the projection head's hidden layer; null means the backbone's feature width.",
        minimum=1,
        maximum=65_536,
        fixed=True,
    )
    projection_dim: int = setting(
        128, "Width of the projection in which the loss is taken.", minimum=1, maximum=65_536, fixed=True
    )
    memory_bank_size: int | None = setting(
        0,
        "Keys of earlier batches that serve as negatives; null chooses it from the data set, 0 means none.",
        minimum=0,
        maximum=1_048_576,
        fixed=True,
    )
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "Number format of the networks; auto takes the faster one of the device.", fixed=True
    )
    memory_format: Literal["auto", "channels_last", "contiguous"] = setting(
        "auto", "How feature maps lie in memory; auto takes the faster way of the device.", fixed=True
    )
    log_every_steps: int = setting(10, "Steps between metrics.", minimum=1, maximum=1_000_000)
    on_collapse: Literal["warn", "stop", "ignore"] = setting(
        "warn",
        "What happens when features or projections collapse, or the loss stays at that of guessing: an alert, an alert "
        "and the end of the job with a checkpoint, or nothing.",
    )
    checkpoint_every_epochs: int = setting(1, "Epochs between checkpoints.", minimum=1, maximum=100_000)
    checkpoint_every_steps: int = setting(
        0, "Steps between checkpoints, beside those of the epochs; 0 means none.", minimum=0, maximum=1_000_000
    )
    checkpoint_every_minutes: float = setting(
        10.0, "Minutes after which there is a checkpoint at the latest; 0 means none.", minimum=0, maximum=10_000
    )
    views: ViewSettings = setting(ViewSettings(), "How random views of an image are made.")
    optimizer: OptimizerSettings = setting(OptimizerSettings(), "How the weights are updated.")
    evaluation: EvaluationSettings = setting(EvaluationSettings(), "How progress is measured on labelled images.")

    def __post_init__(self) -> None:
        if violations := schema.check(self) or self._rules():
            raise SettingsError(violations)

    def batch_size_for(self, num_images: int) -> int:
        """`batch_size`, or the default for so many images to train on: 32 to 256, in powers of two.

        Few images in large batches make few steps, and the steps are what learns: with 10,000 images of CIFAR-10 and
        200 CPU-seconds, kNN was 36.6 % in batches of 64 and 34.5 % in batches of 256 (SimCLR, temperature 0.5). So an
        epoch is to have about 150.
        """
        if self.batch_size is not None:
            return self.batch_size
        most = min(256, max(32, num_images // 150), max(2, num_images))
        return 1 << most.bit_length() - 1

    def _rules(self) -> list[Violation]:
        """What is wrong between fields, each of which is right by itself."""
        found = schema.without_effect(self, type(self))  # a class has its defaults as attributes
        crop, jitter, blur = self.views.crop, self.views.color_jitter, self.views.blur
        for name, low, high in (
            ("views.crop.scale", crop.scale_min, crop.scale_max),
            ("views.crop.ratio", crop.ratio_min, crop.ratio_max),
            ("views.blur.sigma", blur.sigma_min, blur.sigma_max),
        ):
            if low > high:
                found.append(Violation(f"{name}_min", low, f"must be at most {name}_max, which is {high:g}"))
        if jitter.hue * jitter.strength > 0.5:
            message = f"times strength, which is {jitter.strength:g}, must be at most 0.5"
            found.append(Violation("views.color_jitter.hue", jitter.hue, message))
        if self.optimizer.warmup_epochs > self.epochs:
            message = f"must be at most epochs, which is {self.epochs}"
            found.append(Violation("optimizer.warmup_epochs", self.optimizer.warmup_epochs, message))
        return found


@dataclass(frozen=True, kw_only=True)
class SimCLRSettings(TrainSettings):
    """SimCLR (arXiv 2002.05709): every other image of the batch is a negative."""

    method: Literal["simclr"] = setting("simclr", "Self-supervised method.")
    # CIFAR-10, resnet9 x 0.5 at 32 px, 200 CPU-seconds, kNN: 38.2 % with 0.2, 34.5 % with 0.5.
    temperature: float = changed(TrainSettings, "temperature", 0.2)
    # CIFAR-10 at 16 px, resnet9 x 0.25, 600 steps of 64, kNN: 40.5 %, and 35.1 % with strength 1 and blur for half.
    views: ViewSettings = changed(
        TrainSettings,
        "views",
        ViewSettings(color_jitter=ColorJitterSettings(strength=0.5), blur=BlurSettings(probability=0.0)),
    )


@dataclass(frozen=True, kw_only=True)
class MoCoSettings(TrainSettings):
    """MoCo v2 (arXiv 2003.04297): negatives come from a memory bank of keys made by a slowly moving copy."""

    method: Literal["moco"] = setting("moco", "Self-supervised method.")
    temperature: float = changed(TrainSettings, "temperature", 0.2)
    memory_bank_size: int | None = changed(
        TrainSettings,
        "memory_bank_size",
        None,
        minimum=1,
        description="Keys of earlier batches that serve as negatives; null chooses it from the data set.",
    )
    views: ViewSettings = changed(
        TrainSettings,
        "views",
        ViewSettings(
            crop=CropSettings(scale_min=0.2),
            color_jitter=ColorJitterSettings(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
            blur=BlurSettings(probability=0.0),  # as for SimCLR
        ),
    )
    ema_momentum: float = setting(
        0.99, "Share of the teacher that stays at each step, the rest being the student.", minimum=0, maximum=1
    )
    ema_momentum_end: float | None = setting(
        None,
        "Where ema_momentum arrives in the end, along a cosine; null leaves it constant.",
        minimum=0,
        maximum=1,
    )
    # CIFAR-10 at 16 px, resnet9 x 0.25, 600 steps of 64, kNN: 35.2 % with, 33.8 % without; and with a faster teacher
    # (ema_momentum 0.9) 33.8 % instead of a collapse to ln(K + 1).
    projection_batch_norm: bool = setting(
        True, "Whether the projection head has batch norms; the paper's has none, MoCo v3's does.", fixed=True
    )
    symmetric: bool = setting(
        True, "Whether each view serves once as query and once as key, at twice the teacher's cost."
    )

    def _rules(self) -> list[Violation]:
        found = super()._rules()
        if self.ema_momentum_end is not None and self.ema_momentum_end < self.ema_momentum:
            message = f"must be at least ema_momentum, which is {self.ema_momentum:g}"
            found.append(Violation("ema_momentum_end", self.ema_momentum_end, message))
        return found


METHOD_SETTINGS: dict[str, type[TrainSettings]] = {"simclr": SimCLRSettings, "moco": MoCoSettings}


def resolve(method: str, overrides: Mapping[str, object]) -> TrainSettings:
    """The settings of `method` with `overrides`, nested as the settings are (JSON values), merged over its defaults.

    Raises:
        SettingsError: with all violations: unknown names (and the nearest known one), wrong types, bounds, rules
            between fields, and fields that would have no effect.
    """
    if method not in METHOD_SETTINGS:
        known = ", ".join(map(repr, METHOD_SETTINGS))
        raise SettingsError([Violation("method", method, f"is not known; known: {known}")])
    found: list[Violation] = []
    defaults = METHOD_SETTINGS[method]()
    accepted = schema.merge(defaults, overrides, found)
    try:
        settings = dataclasses.replace(defaults, **accepted)
    except SettingsError as error:
        refused = {violation.field for violation in found}
        found += [violation for violation in error.violations if violation.field not in refused]
    if found:
        raise SettingsError(found)
    return settings


def to_json(settings: TrainSettings) -> dict[str, Any]:
    """Every field as a JSON value, nested; `from_json` gives back an equal instance."""
    return schema.to_json(settings)


def from_json(values: Mapping[str, object]) -> TrainSettings:
    """The settings that `to_json` wrote.

    Raises:
        SettingsError: as `resolve`.
    """
    return resolve(str(values.get("method", "")), values)
