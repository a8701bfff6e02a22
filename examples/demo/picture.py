"""The demo's picture: the curves of the training, and images beside those that the embeddings find similar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, GridSpecFromSubplotSpec
from PIL import Image, ImageOps

INK, MUTED, LEARNED, RIGHT, WRONG = "#1f2933", "#8a94a0", "#1769aa", "#2e8b57", "#c0392b"
NUM_QUERIES, NUM_NEIGHBORS = 8, 6
THUMBNAIL = 96


@dataclass(frozen=True, kw_only=True)
class Run:
    """The data of the picture. `rows` are the logged scalars in order, each with its `step`."""

    title: str
    rows: Sequence[dict[str, float]]
    feature_dim: int
    paths: Sequence[Path]
    labels: Sequence[str]
    embeddings: np.ndarray
    seed: int = 0


def draw(run: Run, path: Path) -> None:
    """Write the picture as a PNG: curves on the left, nearest neighbors on the right."""
    matplotlib.use("Agg")
    figure = Figure(figsize=(14, 8), dpi=110, facecolor="white")
    figure.suptitle(run.title, x=0.02, y=0.975, ha="left", fontsize=15, color=INK, weight="bold")
    halves = GridSpec(1, 2, figure, width_ratios=(1, 1.12), left=0.055, right=0.985, top=0.87, bottom=0.07, wspace=0.08)
    draw_curves(figure, halves, run)
    draw_neighbors(figure, halves, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def draw_curves(figure: Figure, halves: GridSpec, run: Run) -> None:
    """Draw the loss, the representation std with its healthy value, and kNN with its baselines, one above the other."""
    has_knn = any("knn_top1" in row for row in run.rows)
    panels = GridSpecFromSubplotSpec(3 if has_knn else 2, 1, halves[0], hspace=0.34)
    loss = figure.add_subplot(panels[0])
    curve(loss, run.rows, "loss", "loss")
    spread = figure.add_subplot(panels[1], sharex=loss)
    curve(spread, run.rows, "representation_std", "representation std")
    healthy = 1 / math.sqrt(run.feature_dim)
    level(spread, healthy, f"1/√{run.feature_dim} = {healthy:.3f}: fully spread out")
    level(spread, 0.0, "0: collapsed")
    spread.set_ylim(-0.08 * healthy, 1.25 * healthy)
    bottom = spread
    if has_knn:
        bottom = figure.add_subplot(panels[2], sharex=loss)
        curve(bottom, run.rows, "knn_top1", "kNN top-1, %", scale=100, marker="o")
        for name, text in (("knn_top1_raw_pixels", "raw pixels"), ("knn_top1_untrained", "untrained backbone")):
            values = [row[name] for row in run.rows if name in row]
            if values:
                level(bottom, 100 * values[0], f"{text} {100 * values[0]:.1f}")
        bottom.margins(y=0.2)
    bottom.set_xlabel("step", color=INK)


def curve(
    axes: Axes, rows: Sequence[dict[str, float]], name: str, title: str, scale: float = 1, marker: str = ""
) -> None:
    """Draw one scalar over the steps, with its last value at its end."""
    points = [(row["step"], scale * row[name]) for row in rows if name in row]
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color="#e8ebee")
    if points:
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=LEARNED, linewidth=1.6, marker=marker, markersize=3.5)
        axes.annotate(
            f"{values[-1]:.3g}",
            (steps[-1], values[-1]),
            xytext=(4, 4),
            textcoords="offset points",
            color=LEARNED,
            weight="bold",
        )


def level(axes: Axes, value: float, text: str) -> None:
    """Draw a dashed line at `value`, with its name at the left end."""
    axes.axhline(value, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    place = axes.get_yaxis_transform()
    axes.text(0.01, value, text, transform=place, va="bottom", ha="left", fontsize=8.5, color=MUTED)


def draw_neighbors(figure: Figure, halves: GridSpec, run: Run) -> None:
    """Draw rows of a query and its nearest neighbors by cosine similarity. A green frame has the query's label, a red
    frame another one."""
    queries, neighbors = nearest(run.embeddings, run.seed)
    grid = GridSpecFromSubplotSpec(len(queries), NUM_NEIGHBORS + 1, halves[1], hspace=0.12, wspace=0.08)
    labelled = len(set(run.labels)) > 1
    for row, query in enumerate(queries):
        for column, index in enumerate([query, *neighbors[row]]):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(thumbnail(run.paths[index]), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            agrees = run.labels[index] == run.labels[query]
            color = INK if column == 0 or not labelled else RIGHT if agrees else WRONG
            for spine in axes.spines.values():
                spine.set(color=color, linewidth=2.2 if column else 1.2)
            if row == 0 and column < 2:
                axes.set_title(
                    ("image", "its nearest neighbors by embedding")[column], loc="left", fontsize=11, color=INK
                )


def nearest(embeddings: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return queries drawn from the (N, D) embeddings, (Q,), and the nearest others of each, (Q, NUM_NEIGHBORS)."""
    usable = np.flatnonzero(np.isfinite(embeddings).all(axis=1))
    units = embeddings[usable] / np.linalg.norm(embeddings[usable], axis=1, keepdims=True)
    count = min(NUM_QUERIES, len(usable))
    queries = np.sort(np.random.default_rng(seed).choice(len(usable), size=count, replace=False))
    similarity = units[queries] @ units.T
    similarity[np.arange(count), queries] = -np.inf
    closest = np.argsort(-similarity, axis=1)[:, : min(NUM_NEIGHBORS, len(usable) - 1)]
    return usable[queries], usable[closest]


def thumbnail(path: Path) -> np.ndarray:
    """Return the image as (96, 96, 3), fitted into a white square."""
    with Image.open(path) as image:
        fitted = ImageOps.exif_transpose(image).convert("RGB")
    resampling = Image.Resampling.NEAREST if max(fitted.size) <= THUMBNAIL // 2 else Image.Resampling.LANCZOS
    return np.asarray(ImageOps.pad(fitted, (THUMBNAIL, THUMBNAIL), method=resampling, color="white"))
