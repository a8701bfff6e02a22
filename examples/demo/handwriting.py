"""Real handwriting as image files: scikit-learn's scans of digits, at random places and sizes.

The 1,797 scans (8 x 8, 16 grey levels, from the test set of UCI's optical recognition of handwritten digits) are
enlarged to 12 to 28 px and placed anywhere on a plain dark ground of 32 px. Centred digits would be too easy: their
pixels alone identify them. Once digits are moved and scaled, pixels are a poor measure of similarity, and a backbone
has something to learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SIDE = 32
SMALLEST, LARGEST = 12, 28
GROUND = 24


def write_images(folder: Path, seed: int = 0) -> int:
    """Write `folder/DIGIT/NNNN.jpg` for each scan and return how many. The same seed writes the same bytes."""
    scans = load_digits()
    random = np.random.default_rng(seed)
    for index, (scan, digit) in enumerate(zip(scans.images, scans.target, strict=True)):
        path = folder / str(digit) / f"{index:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        compose(scan, random).save(path, quality=92)
    return len(scans.images)


def compose(scan: np.ndarray, random: np.random.Generator) -> Image.Image:
    """Return a 32 px image of an 8 x 8 scan (values 0 to 16). Its size and place are drawn from `random`."""
    side = int(random.integers(SMALLEST, LARGEST + 1))
    ink = Image.fromarray((scan / 16 * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    left, top = random.integers(0, SIDE - side + 1, size=2)
    canvas = np.full((SIDE, SIDE), GROUND, np.uint8)
    canvas[top : top + side, left : left + side] = GROUND + np.asarray(ink) * ((255 - GROUND) / 255)
    return Image.fromarray(canvas).convert("RGB")
