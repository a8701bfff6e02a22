"""Rules between fields of a complete configuration, wherever they are in it.

Rules between siblings are part of the schema: see `sibling_rules`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from manyview_server.configuration.networks.patch_size import choose_patch_size
from manyview_server.configuration.schema import Json, Schema
from manyview_server.configuration.violations import Violation


def check(schema: Schema, config: Mapping[str, Json]) -> Iterator[Violation]:
    """Yield each rule that a complete configuration breaks.

    The schema's ``x-takes`` says how many views of the whole image_size the method takes ("min_views" to "max_views"),
    whether it takes smaller ones beside them ("multi_crop"), whether it "hides_patches", and which backbones divide a
    view into patches without a rest ("patch_backbones").
    """
    if "x-takes" not in schema:
        return
    takes = schema["x-takes"]
    for index, pipeline in enumerate(config["views"]["pipelines"]):
        jitter = pipeline["color_jitter"]
        if jitter["hue"] * jitter["strength"] > 0.5:
            text = f"times strength, which is {jitter['strength']:g}, must be at most 0.5"
            yield Violation.of(f"views.pipelines[{index}].color_jitter.hue", jitter["hue"], text)
    yield from _check_views(config, takes)
    yield from _check_grid(config, takes)
    if takes["hides_patches"]:
        yield from _check_patches(config)
    if (warmup := config["optimizer"]["warmup_epochs"]) > config["epochs"]:
        text = f"must be at most epochs, which is {config['epochs']}"
        yield Violation.of("optimizer.warmup_epochs", warmup, text)


def view_size(image_size: int, fraction: float) -> int:
    """Return the pixels on a side of a view that is this share of `image_size`.

    A smaller view is the nearest multiple of the patches that a vision transformer would have by default, or of 4 if
    those are smaller, and at least two such patches.
    """
    if fraction == 1:
        return image_size
    step = 4 if image_size % 2 else max(4, choose_patch_size(image_size))
    return min(image_size, max(2 * step, step * round(fraction * image_size / step)))


def _check_views(config: Mapping[str, Json], takes: Mapping[str, Json]) -> Iterator[Violation]:
    image_size, method = config["image_size"], config["method"]
    sizes = [
        view_size(image_size, pipeline["size_fraction"])
        for pipeline in config["views"]["pipelines"]
        for _ in range(int(pipeline["count"]))
    ]
    num_whole, least, most = sizes.count(image_size), takes["min_views"], takes["max_views"]
    if not least <= num_whole <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        views = "view" if most == 1 else "views"
        text = f"{method} takes {wanted} {views} of the whole image_size, and the pipelines make {num_whole}"
    elif not takes["multi_crop"] and num_whole < len(sizes):
        text = f"{method} takes no smaller views beside the whole ones"
    elif sizes[:num_whole] != [image_size] * num_whole:
        text = "the views of the whole image_size must come first"
    else:
        return
    yield Violation.of("views.pipelines", sizes, text)


def _check_grid(config: Mapping[str, Json], takes: Mapping[str, Json]) -> Iterator[Violation]:
    """Yield views that the backbone cannot divide into patches."""
    if config["backbone"] not in takes.get("patch_backbones", ()):
        return
    image_size, patch_size = config["image_size"], config["patch_size"]
    if patch_size is None:
        if image_size % 2:
            text = f"must be even, because {config['backbone']} divides it into patches; nearest: "
            yield Violation.of("image_size", image_size, f"{text}{image_size - 1} or {image_size + 1}")
        return
    if image_size % patch_size:
        below = image_size // patch_size * patch_size
        nearest = " or ".join(str(size) for size in (below, below + patch_size) if size)
        text = f"must be a multiple of patch_size, which is {patch_size}; nearest: {nearest}"
        yield Violation.of("image_size", image_size, text)
        return
    for index, pipeline in enumerate(config["views"]["pipelines"]):
        size = view_size(image_size, pipeline["size_fraction"])
        if size % patch_size:
            text = f"makes views of {size} pixels, but they must be a multiple of patch_size, which is {patch_size}"
            yield Violation.of(f"views.pipelines[{index}].size_fraction", pipeline["size_fraction"], text)


def _check_patches(config: Mapping[str, Json]) -> Iterator[Violation]:
    if (width := config["embedding_dim"]) is not None:
        text = f"must be null: {config['method']} trains nothing after the backbone"
        yield Violation.of("embedding_dim", width, text)
    image_size, patch_size = config["image_size"], config["patch_size"]
    if patch_size is None and image_size % 2 == 0:
        patch_size = choose_patch_size(image_size)
    if patch_size is None or image_size % patch_size:
        return  # no such network can be built; building it says so
    side, block = image_size // patch_size, config.get("mask_block")
    if side < 2:
        text = f"must be at most half of image_size, which is {image_size}: one patch is hidden, and one is seen"
        yield Violation.of("patch_size", patch_size, text)
    elif block is not None and block >= side:
        yield Violation.of("mask_block", block, f"must be below {side}, the patches on a side of an image")
