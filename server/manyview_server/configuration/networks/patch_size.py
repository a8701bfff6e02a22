"""The default patch size of a vision transformer. The front needs it before there is a job, so it uses no torch."""

from __future__ import annotations

PATCH_SIZES = (16, 8, 4, 2)
FEWEST_ON_A_SIDE = 7


def choose_patch_size(image_size: int) -> int:
    """Return the largest of 16, 8, 4 and 2 that divides `image_size` and leaves at least 7 patches on a side.

    If none leaves as many, return the smallest that divides `image_size`.

    224 pixels get 16 (14 on a side), 96 get 8 (12), 64 get 8 (8), 32 get 4 (8), 28 get 4 (7).

    Raises:
        ValueError: `image_size` is odd.
    """
    dividing = [patch for patch in PATCH_SIZES if image_size % patch == 0]
    if not dividing:
        nearest = f"{image_size - 1} or {image_size + 1}"
        raise ValueError(f"image_size: {image_size} pixels are no multiple of a patch_size of 2; nearest: {nearest}")
    return next((patch for patch in dividing if image_size // patch >= FEWEST_ON_A_SIDE), dividing[-1])
