"""The preparation of an image for a network, from its RGB pixels on: size, crop, resampling, and normalization."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

Crop = Literal["squash", "center"]
Interpolation = Literal["bilinear", "bicubic"]

MAX_SIDE = 4096
SUFFIX = ".preprocessing.json"
"""The name of the operator's file beside a weights file: that of the weights, with this instead of ".safetensors"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """An image is resized, a square is cut from its center, and its channels are scaled to [0, 1] and normalized.

    Raises:
        ValueError: a value is not allowed. The message names the field, its value, and what is allowed.
    """

    image_size: int
    """The side of the square, in pixels: the input of the network."""
    resize_size: int
    """The image is resized to this before: its shorter side with the crop "center", both sides with "squash"."""
    crop: Crop
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: str
    """Who says so, for people."""

    def __post_init__(self) -> None:
        for name in ("image_size", "resize_size"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= MAX_SIDE:
                raise ValueError(f"{name} must be an integer from 1 to {MAX_SIDE} (got {value!r})")
        if self.resize_size < self.image_size:
            raise ValueError(f"resize_size must be at least image_size, {self.image_size} (got {self.resize_size})")
        for name, allowed in (("crop", get_args(Crop)), ("interpolation", get_args(Interpolation))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be {' or '.join(allowed)} (got {getattr(self, name)!r})")
        for name, least in (("mean", -float("inf")), ("std", 0.0)):
            values = getattr(self, name)
            is_three = isinstance(values, tuple) and len(values) == 3
            if not is_three or not all(isinstance(each, int | float) and least < each < 1e6 for each in values):
                above = " above 0" if least == 0 else ""
                raise ValueError(f"{name} must be three numbers{above}, one for each channel (got {values!r})")

    @classmethod
    def squashed(
        cls, image_size: int, mean: tuple[float, float, float], std: tuple[float, float, float], source: str
    ) -> Preprocessing:
        """Return that of manyview's own jobs: whole images become squares."""
        return cls(
            image_size=image_size,
            resize_size=image_size,
            crop="squash",
            interpolation="bilinear",
            mean=mean,
            std=std,
            source=source,
        )

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str) -> Preprocessing:
        """Read all fields but `source`.

        Raises:
            ValueError: a field is missing, unknown, or not allowed.
        """
        wanted = {field.name for field in dataclasses.fields(cls)} - {"source"}
        if not isinstance(values, Mapping):
            raise ValueError(f"must be an object with {', '.join(sorted(wanted))}")
        if missing := sorted(wanted - set(values)):
            raise ValueError(f"lacks {', '.join(missing)}")
        if unknown := sorted(set(values) - wanted - {"source"}):
            raise ValueError(f"has unknown fields: {', '.join(unknown)}")
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**{**fields, "source": source})

    @classmethod
    def beside(cls, weights_file: Path) -> Preprocessing | None:
        """Return what the operator says in a file beside a weights file, or None if there is no such file.

        Raises:
            ValueError: it cannot be read. The message names the file.
        """
        path = weights_file.with_suffix(SUFFIX)
        try:
            return cls.from_json(json.loads(path.read_text()), f"the server's {path.name}")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ValueError(f"{path.name} cannot be read on the server: {error.strerror}") from error
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


DEFAULT = Preprocessing.squashed(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "manyview's default")
"""Our own networks and those of plugins have this one, unless a job trained them. The numbers are ImageNet's."""
