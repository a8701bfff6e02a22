"""Images drawn for a run: a few soft shapes and fine grain, so that the files are about as large as photographs."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

CLASSES = 4


def draw(number: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Return the pixels (height, width, 3) of image `number`. Its class, `number` modulo 4, is the color of a bar."""
    random = np.random.default_rng(number)
    soft = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(soft).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    pixels = pixels + random.integers(-12, 13, (height, width, 1), dtype=np.int16)
    left, color = int(random.integers(0, width // 2)), np.zeros(3, np.int16)
    color[number % CLASSES % 3] = 255 if number % CLASSES < 3 else 120
    pixels[:, left : left + max(2, width // 8)] = color
    return pixels.clip(0, 255).astype(np.uint8)


def jpeg(number: int, width: int, height: int) -> bytes:
    """Return image `number` as a JPEG of quality 90."""
    buffer = io.BytesIO()
    Image.fromarray(draw(number, width, height)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def jpegs(count: int, width: int, height: int) -> list[bytes]:
    """Return images 0 to `count` - 1, drawn on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(partial(jpeg, width=width, height=height), range(count)))


def write(folder: Path, count: int, width: int, height: int) -> list[Path]:
    """Write the same images as files `folder/CLASS/NUMBER.jpg`."""
    paths = [folder / str(number % CLASSES) / f"{number:05d}.jpg" for number in range(count)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    for path, data in zip(paths, jpegs(count, width, height), strict=True):
        path.write_bytes(data)
    return paths


def tensor(count: int, side: int) -> Tensor:
    """Return images (count, 3, side, side) uint8 on the CPU."""
    return torch.stack([torch.from_numpy(draw(number, side, side)).permute(2, 0, 1) for number in range(count)])
