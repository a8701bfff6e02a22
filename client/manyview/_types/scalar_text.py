"""The scalars of a job as people read them: a label, and a value with its unit."""

from __future__ import annotations

import math

MAIN = ("loss", "knn_top1", "representation_std_ratio")
"""The scalars that are always on the screen, in their order."""
BASELINES = {"knn_top1_raw_pixels": "raw pixels", "knn_top1_untrained": "untrained"}
"""Scalars that are measured once, before the first step. They stand below kNN."""
LABELS = {
    "knn_top1_raw_pixels": "kNN raw pixels",
    "knn_top1_untrained": "kNN untrained",
    "representation_std_ratio": "standard deviation",
    "images_per_second": "speed",
    "step_ms": "step",
    "memory_bytes": "memory",
    "data_wait_fraction": "wait for data",
}
"""Labels that differ from the names of the scalars."""
_LOSSES = ("loss",)


def label(name: str) -> str:
    """Return the label of a scalar. Further votes of kNN have their k and temperature in it."""
    if name in LABELS:
        return LABELS[name]
    return name.replace("knn_top", "kNN top-").replace("linear_top", "linear top-").replace("_", " ")


def order(name: str) -> tuple[int, str]:
    """Return the sort key of a scalar: the main ones come first, the loss before all others."""
    return (MAIN.index(name) if name in MAIN else len(MAIN), label(name))


def value(name: str, number: float) -> str:
    """Return a value with its unit."""
    if not math.isfinite(number):
        return str(number)
    if name.startswith(("knn_", "linear_")) or name.endswith("_fraction"):
        return f"{100 * number:.1f} %"
    if name.endswith("_bytes"):
        return f"{number / 1e6:,.0f} MB"
    if name.endswith("_ms"):
        return f"{number:,.4g} ms" if number < 1000 else f"{number:,.0f} ms"
    if name == "images_per_second":
        return f"{number:,.1f} img/s"
    if name.endswith("_per_second"):
        return f"{number:,.4g}/s"
    if name.endswith("_seconds"):
        return f"{number:.4g} s"
    if name.endswith("_std_ratio"):
        return f"{number:.2f} of even"
    if number == int(number) and abs(number) < 1e6:
        return f"{number:,.0f}"
    return f"{number:.4g}"
