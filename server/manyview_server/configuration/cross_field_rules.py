"""Rules between fields of a configuration in full, as functions of JSON values.

The settings check themselves by them, and so does a server before it creates a job: nothing here needs torch. Bounds
that are other fields are not here but in the schema (see `short_forms.broken_rules`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from manyview_server.configuration.patch_size import choose_patch_size

Json = Any

Broken = tuple[str, Json, str]
"""(field, value, message)."""


def broken(config: Mapping[str, Json], takes: Mapping[str, Json]) -> Iterator[Broken]:
    """Every rule that `config` breaks, whose method `takes` from "min_views" to "max_views" views of the whole
    image_size, smaller ones beside them where it takes a "multi_crop", and "hides_patches" or does not."""
    for index, pipeline in enumerate(config["views"]["pipelines"]):
        jitter = pipeline["color_jitter"]
        if jitter["hue"] * jitter["strength"] > 0.5:
            message = f"times strength, which is {jitter['strength']:g}, must be at most 0.5"
            yield f"views.pipelines[{index}].color_jitter.hue", jitter["hue"], message
    yield from _broken_by_views(config, takes)
    if takes["hides_patches"]:
        yield from _broken_by_patches(config)
    if (warmup := config["optimizer"]["warmup_epochs"]) > config["epochs"]:
        yield "optimizer.warmup_epochs", warmup, f"must be at most epochs, which is {config['epochs']}"


def view_size(image_size: int, fraction: float) -> int:
    """Pixels on a side of a view that is this share of `image_size`: all of it, or the nearest multiple of the patches
    that a vision transformer would have by default, or of 4 where those are smaller, twice as much at least."""
    if fraction == 1:
        return image_size
    step = 4 if image_size % 2 else max(4, choose_patch_size(image_size))
    return min(image_size, max(2 * step, step * round(fraction * image_size / step)))


def _broken_by_views(config: Mapping[str, Json], takes: Mapping[str, Json]) -> Iterator[Broken]:
    image_size, method = config["image_size"], config["method"]
    sizes = [
        view_size(image_size, pipeline["size_fraction"])
        for pipeline in config["views"]["pipelines"]
        for _ in range(int(pipeline["count"]))
    ]
    num_whole, least, most = sizes.count(image_size), takes["min_views"], takes["max_views"]
    if not least <= num_whole <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        message = f"{method} takes {wanted} views of the whole image_size, and these are {num_whole}"
        yield "views.pipelines", sizes, message
    elif not takes["multi_crop"] and num_whole < len(sizes):
        yield "views.pipelines", sizes, f"{method} takes no smaller views beside the whole ones"
    elif sizes[:num_whole] != [image_size] * num_whole:
        yield "views.pipelines", sizes, "the views of the whole image_size come first"


def _broken_by_patches(config: Mapping[str, Json]) -> Iterator[Broken]:
    if (width := config["embedding_dim"]) is not None:
        yield "embedding_dim", width, f"must be null: {config['method']} trains nothing behind the backbone"
    image_size, patch_size = config["image_size"], config["patch_size"]
    if patch_size is None and image_size % 2 == 0:
        patch_size = choose_patch_size(image_size)
    if patch_size is None or image_size % patch_size:
        return  # no network can be built, which says so by itself
    side, block = image_size // patch_size, config.get("mask_block")
    if side < 2:
        yield "patch_size", patch_size, f"must be at most half of image_size, {image_size}: one is hidden, one is seen"
    elif block is not None and block >= side:
        yield "mask_block", block, f"must be below {side}, the patches on a side of an image"
