"""The settings that all methods have, with a default, bounds and a sentence each.

`TrainSettings` holds what all methods share; each method has one subclass, in its own file under `methods`, with
defaults and fields of its own.
"""

# ruff: noqa: RUF009 - `setting` and `changed` make dataclass fields, and their defaults are frozen
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Self

from manyview_server import configuration
from manyview_server.configuration import InvalidConfiguration, Pattern, setting
from manyview_server.learn import backbones
from manyview_server.learn.evaluation.knn import EvaluationSettings
from manyview_server.learn.optimizers import OptimizerSettings
from manyview_server.learn.views.presets import PRESETS
from manyview_server.learn.views.recipe import ViewSettings


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The settings that all methods share. Use a method's subclass, or `resolve`.

    Raises:
        InvalidConfiguration: with every violation, of one field or between fields.
    """

    min_views: ClassVar[int] = 2
    max_views: ClassVar[int] = 2
    """The fewest and the most views of the whole image_size that the method takes."""
    multi_crop: ClassVar[bool] = False
    """Does the method take smaller views beside them?"""
    hides_patches: ClassVar[bool] = False
    """Must a vision transformer predict patches that it does not see? Then the loss trains nothing else."""

    method: str = setting("", "Self-supervised method.")
    backbone: str = setting(
        "resnet18",
        "Network whose features are the embedding; if a job leaves it open, the server chooses it.",
        choices=backbones.names,
        pattern=Pattern(regex=backbones.LIBRARY_NAMES.pattern, words="torchvision/NAME or timm/NAME"),
        fixed=True,
    )
    backbone_width: float = setting(
        1.0,
        "Multiplies the number of channels of a ResNet, or of heads of a vision transformer.",
        exclusive_minimum=0,
        maximum=8,
        only={"backbone": partial(backbones.names_taking, "width")},
        fixed=True,
    )
    stem: Literal["auto", "imagenet", "small"] = setting(
        "auto",
        "First layers of a ResNet; auto means small below 64 pixels and imagenet from there.",
        only={"backbone": partial(backbones.names_taking, "stem")},
        fixed=True,
    )
    stem_relu: bool = setting(
        True,
        "Whether a ResNet's small stem ends in ReLU; lightly's CIFAR-10 benchmarks are without.",
        only={"backbone": partial(backbones.names_taking, "stem_relu")},
        fixed=True,
    )
    patch_size: int | None = setting(
        None,
        "Width and height of the patches of a vision transformer, in pixels; null chooses it from image_size.",
        minimum=1,
        maximum=256,
        only={"backbone": partial(backbones.names_taking, "patch_size")},
        fixed=True,
    )
    backbone_weights: str | None = setting(
        None,
        "File in the server's directory of weights from which the backbone starts; null starts at random.",
        pattern=Pattern(
            regex=r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}/){0,4}[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.safetensors",
            words="a path in the server's directory of weights that ends in .safetensors",
        ),
        fixed=True,
    )
    embedding_dim: int | None = setting(
        None,
        "Width of a learned linear layer after the backbone, whose output is the embedding; null means none.",
        minimum=1,
        maximum=65_536,
        fixed=True,
    )
    image_size: int = setting(
        224,
        "Width and height of a view, in pixels; if a job leaves it open, the server chooses it.",
        minimum=8,
        maximum=1024,
    )
    decode_size: int | None = setting(
        None,
        "Width and height at which decoded images are kept, in pixels; null chooses it from image_size.",
        minimum=8,
        maximum=2048,
    )
    transparency: Literal["white", "black", "drop"] = setting(
        "white",
        "Background on which transparent images are laid; drop uses the colors that are hidden under transparency.",
        older="drop",
    )
    color_profile: Literal["srgb", "ignore"] = setting(
        "srgb", "Whether colors are converted to sRGB from the ICC profile of an image, or kept.", older="ignore"
    )
    batch_size: int | None = setting(
        None, "Images in a step; null chooses it from the data set.", minimum=2, maximum=65_536
    )
    epochs: int = setting(
        100,
        "Passes over the data set; if a job leaves it open, the server chooses it by the time that the job may take.",
        minimum=1,
        maximum=100_000,
    )
    max_steps: int | None = setting(
        None, "Steps after which training ends, unless the epochs end it earlier.", minimum=1, maximum=10**9
    )
    seed: int = setting(0, "Seed of the weights, the views and the order of images.", minimum=0, maximum=2**53 - 1)
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "Number format of the networks; auto takes the faster one of the device.", fixed=True
    )
    memory_format: Literal["auto", "channels_last", "contiguous"] = setting(
        "auto", "Layout of feature maps in memory; auto takes the faster one of the device.", fixed=True
    )
    log_every_steps: int = setting(
        10, "Steps between metrics. The first and the last step have metrics, too.", minimum=1, maximum=1_000_000
    )
    on_collapse: Literal["warn", "stop", "ignore"] = setting(
        "warn",
        "What happens when features or projections collapse, or the loss stays at its known value of chance: an alert; "
        "an alert, and the job ends with a checkpoint; or nothing.",
    )
    checkpoint_every_epochs: int = setting(1, "Epochs between checkpoints.", minimum=1, maximum=100_000)
    checkpoint_every_steps: int = setting(
        0, "Steps between checkpoints, in addition to those of the epochs; 0 means none.", minimum=0, maximum=1_000_000
    )
    checkpoint_every_minutes: float = setting(
        10.0, "The most minutes between checkpoints; 0 means no limit.", minimum=0, maximum=10_000
    )
    views: ViewSettings = setting(ViewSettings(), "How random views of an image are made.", presets=PRESETS)
    optimizer: OptimizerSettings = setting(OptimizerSettings(), "How the weights are updated.")
    evaluation: EvaluationSettings = setting(EvaluationSettings(), "How progress is measured on labelled images.")

    def __post_init__(self) -> None:
        self._choose_default_views()
        if violations := configuration.check(self):
            raise InvalidConfiguration(violations)

    def _choose_default_views(self) -> None:
        """Let the default recipe follow `image_size`, as it does in `configuration.resolve`."""
        field = type(self).__dataclass_fields__["views"]
        chosen = field.metadata["default_preset"]
        if chosen is not None and any(self.views is default for default in (field.default, chosen.small_value)):
            is_small = isinstance(self.image_size, int | float) and self.image_size < chosen.below
            object.__setattr__(self, "views", chosen.small_value if is_small else field.default)

    def batch_size_for(self, num_images: int) -> int:
        """Return `batch_size`, or the default for this many training images: 32 to 256, in powers of two.

        Few images in large batches make few steps, and learning depends on the number of steps: with 10,000 images of
        CIFAR-10 and 200 CPU-seconds, kNN was 36.6 % in batches of 64 and 34.5 % in batches of 256 (SimCLR, temperature
        0.5). The default therefore makes about 150 steps in an epoch.
        """
        if self.batch_size is not None:
            return self.batch_size
        most = min(256, max(32, num_images // 150), max(2, num_images))
        return 1 << most.bit_length() - 1

    def for_num_images(self, num_images: int) -> Self:
        """Return the settings for this many training images: what was left open and depends on them is chosen."""
        return dataclasses.replace(self, batch_size=self.batch_size_for(num_images))

    @classmethod
    def takes(cls) -> dict[str, Any]:
        """Return what the method takes, as JSON values for `cross_field_rules`."""
        return {
            "min_views": cls.min_views,
            "max_views": cls.max_views,
            "multi_crop": cls.multi_crop,
            "hides_patches": cls.hides_patches,
            "patch_backbones": [
                name for name in backbones.BACKBONES if "patch_size" in backbones.accepted_options(name)
            ],
        }
