"""The cells of the benchmark of views.

Shapes: B images, S pixels on a side of a decoded image.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from manyview_server.image_header import read_header
from manyview_server.learn.views import PRESETS, ViewSettings, apply, draw_all, make_views
from manyview_server.store.images.shard_writers import ShardWriter
from manyview_server.store.images.shards import SNAPSHOT_DTYPE, image_id_of
from manyview_server.worker.images.decode_size import choose_size
from manyview_server.worker.job_images.decoded_images import DecodedImages
from manyview_server.worker.job_images.image_decoder import ImageDecoder
from manyview_server.worker.job_images.image_index import ImageIndex
from manyview_server.worker.job_images.pixel_store import PixelStore

ROUNDS = 5
BATCHES = {32: 256, 64: 128, 224: 32}
"""The images of a batch for each size of view."""
LIGHTLY_SHARE = 4
"""lightly's side makes views of one image in so many, because it makes them one by one."""
QUALITY = 90
LAYOUT = torch.channels_last
"""The layout that jobs on a CPU choose."""
Work = Callable[[], object]


def measure(key: dict[str, Any], images: Path) -> dict[str, Any]:
    """Return the values of a cell."""
    torch.set_num_threads(1)
    files = read_files(images, key["side"], BATCHES[key["size"]])
    with competition() as others, tempfile.TemporaryDirectory() as folder:
        values = rate(key, files, Path(folder)) if key["part"] == "rate" else profile(key, files)
    return {**values, "batch": len(files), "others": round(others[0], 2)}


def rate(key: dict[str, Any], files: list[bytes], folder: Path) -> dict[str, Any]:
    """Return the milliseconds per image of each part, in each round: ours, and lightly's as `lightly_...`."""
    size = key["size"]
    recipe, transform = sides(key["recipe"], size)
    rows, some = torch.arange(len(files)), files[::LIGHTLY_SHARE]
    pictures = [pillow(file) for file in some]
    with (
        closing(stored(files, folder / "fresh", size, 0)) as fresh,
        closing(stored(files, folder / "kept", size)) as kept,
    ):
        batch = kept.gather(rows)
        image_ids = kept.index.image_ids
        precision = getattr(torch, key["precision"])

        def views() -> list[Tensor]:
            return make_views(
                kept.gather(rows).images, batch.sizes, image_ids, recipe,
                image_size=size, seed=0, epoch=1, dtype=precision, memory_format=LAYOUT,
            )  # fmt: skip

        parts: dict[str, tuple[Work, int]] = {
            "decode": (lambda: fresh.gather(rows), len(files)),
            "lightly_decode": (lambda: [pillow(file) for file in some], len(some)),
            "views": (views, len(files)),
            "lightly_views": (lambda: [transform(picture) for picture in pictures], len(some)),
        }
        return {"decode_size": kept.size, **in_turns(parts)}


def profile(key: dict[str, Any], files: list[bytes]) -> dict[str, Any]:
    """Return the milliseconds per image of the whole and of each change, with the same crops."""
    size, dtype = key["size"], getattr(torch, key["precision"])
    recipe, _ = sides(key["recipe"], size, peer=False)
    side = key["side"]
    images = torch.stack([torch.from_numpy(np.array(pillow(file))) for file in files]).permute(0, 3, 1, 2)
    sizes, image_ids = torch.full((len(files), 2), side), torch.arange(len(files)) * 7919
    drawn = draw_all(recipe, sizes, image_ids, cache_size=side, seed=0, epoch=1)

    def views(normalize: Any = recipe.normalize, **without: Any) -> None:
        for pipeline, parameters in zip(recipe.pipelines, drawn, strict=True):
            changed: dict[str, Any] = {
                name: torch.full_like(getattr(parameters, name), value) for name, value in without.items()
            }
            apply(
                images, dataclasses.replace(parameters, **changed), size=pipeline.size(size),
                interpolation=pipeline.crop.interpolation, normalize=normalize, dtype=dtype, memory_format=LAYOUT,
            )  # fmt: skip

    every: dict[str, dict[str, Any]] = {
        "flip": {"flip": False},
        "jitter": {"jitter": False},
        "gray": {"grayscale": False},
        "blur": {"sigma": 0.0},
        "solarize": {"solarize_from": torch.inf},
        "normalize": {"normalize": None},
    }
    parts: dict[str, tuple[Work, int]] = {
        "draw": (lambda: draw_all(recipe, sizes, image_ids, cache_size=side, seed=0, epoch=1), len(files)),
        "all": (views, len(files)),
    }
    parts |= {name: (partial(views, **change), len(files)) for name, change in every.items()}
    nothing = {name: value for change in every.values() for name, value in change.items()}
    parts["crop"] = (partial(views, **nothing), len(files))
    found = {name: statistics.median(rounds) for name, rounds in in_turns(parts).items()}
    differences = {name: found["all"] - found[name] for name in every}
    return {"draw": found["draw"], "crop": found["crop"], **differences, "all": found["draw"] + found["all"]}


def in_turns(parts: dict[str, tuple[Work, int]]) -> dict[str, list[float]]:
    """Do the work of all parts in turns, and return the CPU milliseconds of this process per image in each round."""
    found: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(1 + ROUNDS):
        for name, (work, num_images) in parts.items():
            began = time.process_time()
            work()
            if number:  # the first round warms up
                found[name].append(1000 * (time.process_time() - began) / num_images)
    return found


def sides(method: str, size: int, *, peer: bool = True) -> tuple[ViewSettings, Callable[[Image.Image], list[Tensor]]]:
    """Return our recipe and lightly's transform with the same numbers. DINO has its small views at every size."""
    small = size < 96 and method != "dino"
    recipe = PRESETS[f"{method}_small" if small else method]
    if not peer:
        return recipe, lambda _: []
    from lightly import transforms

    plain: dict[str, Any] = {"input_size": size, **({"gaussian_blur": 0.0} if small else {})}
    if method == "dino":
        local = recipe.pipelines[-1].size(size)
        return recipe, transforms.DINOTransform(global_crop_size=size, local_crop_size=local)
    if method == "moco":
        return recipe, transforms.MoCoV2Transform(**plain)
    return recipe, transforms.SimCLRTransform(**plain, cj_strength=0.5 if small else 1.0)


def read_files(folder: Path, side: int | None, num_files: int) -> list[bytes]:
    """Return JPEGs from a folder as they are, or their middles as squares of `side` pixels."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    if len(paths) < num_files:
        raise SystemExit(f"{folder} has {len(paths)} JPEGs; {num_files} are needed")
    files = [path.read_bytes() for path in paths[:: len(paths) // num_files][:num_files]]
    return files if side is None else [square(file, side) for file in files]


def square(file: bytes, side: int) -> bytes:
    """Return the middle of an image as a JPEG of `side` x `side` pixels."""
    image = pillow(file)
    margin = [(length - min(image.size)) / 2 for length in image.size]
    middle = (margin[0], margin[1], margin[0] + min(image.size), margin[1] + min(image.size))
    image.resize((side, side), Image.Resampling.BICUBIC, middle).save(found := io.BytesIO(), "JPEG", quality=QUALITY)
    return found.getvalue()


def pillow(file: bytes) -> Image.Image:
    """Decode an image as lightly's data sets do."""
    return Image.open(io.BytesIO(file)).convert("RGB")


def stored(files: list[bytes], folder: Path, image_size: int, cache_bytes: int = 1 << 33) -> DecodedImages:
    """Write the files to a shard, and return the images of it as a job would have them."""
    folder.mkdir()
    rows = np.zeros(len(files), SNAPSHOT_DTYPE)
    writer = ShardWriter(folder)
    for row, file in zip(rows, files, strict=True):
        digest, header = hashlib.sha256(file).digest(), read_header(file)
        row["image_id"], row["label"], row["length"] = image_id_of(digest), -1, len(file)
        row["width"], row["height"] = header.width, header.height
        meta = {"sha256": digest.hex(), "key": "", "label": ""}
        row["shard"], row["offset"] = writer.append(image_id_of(digest), "jpg", file, meta)
    writer.sync()
    writer.close()
    size = choose_size(rows, image_size, None)
    store = PixelStore(size, torch.device("cpu"), cache_bytes)
    return DecodedImages(ImageIndex(rows), ImageDecoder(folder, size), store, num_threads=1)


@contextmanager
def competition() -> Iterator[list[float]]:
    """Yield a list that gets, at the end of the block, the cores that other processes kept busy during it."""
    found: list[float] = []
    began, busy, own = time.monotonic(), busy_s(), time.process_time()
    yield found
    found.append(max(0.0, (busy_s() - busy - (time.process_time() - own)) / (time.monotonic() - began)))


def busy_s() -> float:
    """Return the seconds that all cores of the machine have worked so far."""
    user, nice, system, _, _, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
