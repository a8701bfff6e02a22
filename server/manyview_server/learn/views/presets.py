"""The papers' recipes of views, as in lightly 1.5.26. SimMIM's, which lightly does not have, follows its paper.

Sizes are for 224 pixels. Smaller views are a share of `image_size` (96 of 224 is 3/7). For images of 32 pixels, lightly
leaves out the blur and the smaller views and halves SimCLR's jitter: these are the presets named `_small`. A method
takes them by default below `SMALL_BELOW` pixels.
"""

from __future__ import annotations

from dataclasses import replace

from manyview_server.learn.views.recipe import (
    BlurSettings,
    ColorJitterSettings,
    CropSettings,
    GrayscaleSettings,
    HorizontalFlipSettings,
    PipelineSettings,
    SolarizeSettings,
    ViewSettings,
)

SMALL_BELOW = 96
"""Pixels of `image_size` from which the papers' recipes are the default."""

LOCAL_SIZE = 3 / 7
"""96 of 224 pixels."""


def _jitter(amounts: tuple[float, float, float, float], strength: float = 1.0) -> ColorJitterSettings:
    brightness, contrast, saturation, hue = amounts
    return ColorJitterSettings(
        probability=0.8, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue, strength=strength
    )


def _pipeline(
    count: int,
    scale: tuple[float, float],
    jitter: ColorJitterSettings,
    *,
    blur: float,
    solarize: SolarizeSettings | None = None,
    size_fraction: float = 1.0,
    bicubic: bool = False,
) -> PipelineSettings:
    """Return a pipeline with the steps that nearly all recipes share: half of the views mirrored, a fifth gray."""
    return PipelineSettings(
        count=count,
        size_fraction=size_fraction,
        crop=CropSettings(scale_min=scale[0], scale_max=scale[1], interpolation="bicubic" if bicubic else "bilinear"),
        horizontal_flip=HorizontalFlipSettings(probability=0.5),
        color_jitter=jitter,
        grayscale=GrayscaleSettings(probability=0.2),
        blur=BlurSettings(probability=blur),
        solarize=SolarizeSettings() if solarize is None else solarize,
    )


def _recipe(*pipelines: PipelineSettings) -> ViewSettings:
    return ViewSettings(pipelines=pipelines)


def _solarize(probability: float, *, before_blur: bool = False) -> SolarizeSettings:
    return SolarizeSettings(probability=probability, before_blur=before_blur)


_SIMCLR = _jitter((0.8, 0.8, 0.8, 0.2))
_MOCO = _jitter((0.4, 0.4, 0.4, 0.1))
_BYOL = _jitter((0.4, 0.4, 0.2, 0.1))
_VICREG = _DINO = _jitter((0.8, 0.8, 0.4, 0.2), strength=0.5)

PRESETS: dict[str, ViewSettings] = {
    # arXiv 2002.05709, appendix A.
    "simclr": _recipe(_pipeline(2, (0.08, 1), _SIMCLR, blur=0.5)),
    "simclr_small": _recipe(_pipeline(2, (0.08, 1), replace(_SIMCLR, strength=0.5), blur=0)),
    # arXiv 1911.05722, section 4.
    "moco_v1": _recipe(_pipeline(2, (0.2, 1), _jitter((0.4, 0.4, 0.4, 0.4)), blur=0)),
    # arXiv 2003.04297, section 3.
    "moco": _recipe(_pipeline(2, (0.2, 1), _MOCO, blur=0.5)),
    "moco_small": _recipe(_pipeline(2, (0.2, 1), _MOCO, blur=0)),
    # arXiv 2011.10566, appendix A.
    "simsiam": _recipe(_pipeline(2, (0.2, 1), _MOCO, blur=0.5)),
    "simsiam_small": _recipe(_pipeline(2, (0.2, 1), _MOCO, blur=0)),
    # arXiv 2006.07733, appendix B; Barlow Twins (2103.03230) uses the same.
    "byol": _recipe(
        _pipeline(1, (0.08, 1), _BYOL, blur=1.0),
        _pipeline(1, (0.08, 1), _BYOL, blur=0.1, solarize=_solarize(0.2)),
    ),
    "byol_small": _recipe(
        _pipeline(1, (0.08, 1), _BYOL, blur=0),
        _pipeline(1, (0.08, 1), _BYOL, blur=0, solarize=_solarize(0.2)),
    ),
    # arXiv 2105.04906, appendix C.1.
    "vicreg": _recipe(
        _pipeline(
            2,
            (0.08, 1),
            _VICREG,
            blur=0.5,
            solarize=_solarize(0.1, before_blur=True),
        )
    ),
    "vicreg_small": _recipe(_pipeline(2, (0.08, 1), _VICREG, blur=0, solarize=_solarize(0.1))),
    # arXiv 2006.09882, section 4 and appendix A.
    "swav": _recipe(
        _pipeline(2, (0.14, 1), _SIMCLR, blur=0.5),
        _pipeline(6, (0.05, 0.14), _SIMCLR, blur=0.5, size_fraction=LOCAL_SIZE),
    ),
    "swav_small": _recipe(_pipeline(2, (0.14, 1), replace(_SIMCLR, strength=0.5), blur=0)),
    # arXiv 2104.14294, section 3.1.
    "dino": _recipe(
        _pipeline(1, (0.4, 1), _DINO, blur=1.0, bicubic=True),
        _pipeline(1, (0.4, 1), _DINO, blur=0.1, solarize=_solarize(0.2), bicubic=True),
        _pipeline(6, (0.05, 0.4), _DINO, blur=0.5, size_fraction=LOCAL_SIZE, bicubic=True),
    ),
    "dino_small": _recipe(
        _pipeline(1, (0.4, 1), _DINO, blur=0, bicubic=True),
        _pipeline(1, (0.4, 1), _DINO, blur=0, solarize=_solarize(0.2), bicubic=True),
    ),
    # arXiv 2111.06377, appendix A.1.
    "mae": _recipe(
        PipelineSettings(
            crop=CropSettings(scale_min=0.2, interpolation="bicubic"),
            horizontal_flip=HorizontalFlipSettings(probability=0.5),
        )
    ),
    # arXiv 2111.09886, section 4.1.
    "simmim": _recipe(
        PipelineSettings(crop=CropSettings(scale_min=0.67), horizontal_flip=HorizontalFlipSettings(probability=0.5))
    ),
}
