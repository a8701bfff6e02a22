"""The messages to a job's owner about kNN: at its start whether it is measured, and at its end what it is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from manyview_server.counted_noun import number_of
from manyview_server.messages.training import Level
from manyview_server.worker.evaluation.knn import KnnEvaluation

COARSE_QUERIES = 50
"""The number of held-out images below which a single one changes the accuracy by more than two points."""


def start_lines(
    knn: KnnEvaluation | None, why_no_knn: str | None, *, has_labels: bool, num_held_out: int
) -> Iterator[tuple[Level, str]]:
    """Yield (level, text): why kNN is not measured, or that its numbers will be coarse."""
    if why_no_knn:
        on_all = f", or set evaluation.knn_every_epochs to 0 to train on what is held out ({num_held_out}) as well"
        yield "warning" if has_labels else "info", f"kNN is not measured: {why_no_knn}{on_all if num_held_out else ''}"
    elif knn is not None and num_held_out < COARSE_QUERIES:
        images, points = number_of(num_held_out, "held-out image"), 100 / num_held_out
        yield "info", f"kNN is measured on {images}: each of them changes it by {points:.1f} points"


def end_line(accuracies: Mapping[str, float], raw_pixels: Mapping[str, float]) -> str | None:
    """Return a warning if the features of a finished job find neighbors worse than raw pixels do."""
    found, baseline = 100 * accuracies["knn_top1"], 100 * raw_pixels["knn_top1"]
    if round(found, 1) >= round(baseline, 1):
        return None
    return (
        f"kNN {found:.1f} % is below that of raw pixels, {baseline:.1f} %: "
        "train longer (epochs), or start from pretrained weights (backbone_weights)"
    )
