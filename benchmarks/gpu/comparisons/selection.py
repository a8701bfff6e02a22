"""Checks of the work on embeddings on the device: kNN, principal components, every strategy, duplicates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from benchmarks.gpu.bench import CPU, Bench
from torch import Tensor

from manyview_server.learn import pca, selection
from manyview_server.learn.evaluation import collapse
from manyview_server.learn.evaluation.knn import knn_rankings, raw_pixel_features, topk_accuracy
from manyview_server.learn.evaluation.linear_probe import LinearProbe

CLASSES = 10
AGREEING = 0.99
"""The share of places that must agree. Distances differ in their last bits, so two rows at equal distance may swap."""


def run(bench: Bench) -> None:
    """Check everything with the same rows on both sides."""
    count = bench.size(5000, 200)
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % CLASSES
    rows = torch.randn(count, 64, generator=draw) + 2 * torch.randn(CLASSES, 64, generator=draw)[labels]
    rows[count // 2] = rows[count // 3]
    unit = selection.unit_rows(rows)
    bench.close("unit_rows", selection.unit_rows(rows.to(bench.device)), unit, 1e-6, "float32")
    sides = [(unit.to(device), labels.to(device)) for device in (CPU, bench.device)]
    queries = count // 10
    for name, found in ORDERS.items():
        expected, ours = (found(here, classes, queries).cpu() for here, classes in sides)
        agreeing = float((expected == ours).double().mean()) if expected.shape == ours.shape else 0.0
        bench.check(name, agreeing >= AGREEING, f"{agreeing:.2%} of the places agree, at least {AGREEING:.0%}")
    components(bench, *(here for here, _ in sides))
    numbers(bench, *(here for here, _ in sides))
    probes(bench, sides)


def knn(rows: Tensor, labels: Tensor, queries: int) -> Tensor:
    """Return the first classes by votes."""
    found = knn_rankings(rows[:queries], rows[queries:], labels[queries:], CLASSES, [(20, 0.07)], best=3)
    assert topk_accuracy(found[20, 0.07], labels[:queries], 1) > 0.5
    return found[20, 0.07][:, :1]


def chosen_of(rows: Tensor) -> Tensor:
    """Return rows that count as chosen before."""
    return torch.tensor([3, 5], device=rows.device)


ORDERS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "kNN": knn,
    "nearest": lambda rows, _, q: selection.nearest(rows[:q], rows, 5, query_rows=torch.arange(q, device=rows.device))[
        1
    ],
    "random": lambda rows, _, q: selection.random(len(rows), q, seed=1, chosen=chosen_of(rows)).rows,
    "coreset": lambda rows, _, q: selection.coreset(rows, q, seed=1, chosen=chosen_of(rows)).rows,
    "minimum_distance": lambda rows, _, q: selection.minimum_distance(rows, 0.9, seed=1, count=q).rows,
    "typicality": lambda rows, _, q: selection.typicality(rows, q, chosen=chosen_of(rows)).rows,
    "similarity": lambda rows, _, q: selection.similarity(rows, rows[:3], q, chosen=chosen_of(rows)).rows,
    "near_duplicates": lambda rows, _, q: selection.near_duplicates(rows, 0.3),
}


def components(bench: Bench, on_cpu: Tensor, on_device: Tensor) -> None:
    """Check principal components, and rows projected on them."""
    expected, found = (pca.fit(torch.split(rows, 1000)).first(8) for rows in (on_cpu, on_device))
    bench.close("PCA: variances", found.variances, expected.variances, 1e-9, "float64")
    bench.close("PCA: components", found.components, expected.components, 1e-6, "float64, over the gaps of variances")
    bench.close("PCA: rows", projected(found, on_device), projected(expected, on_cpu), 1e-5, "rows are float32")


def projected(found: pca.Pca, rows: Tensor) -> Tensor:
    """Project rows on the components, in the type of the rows."""
    return ((rows.to(found.mean) - found.mean) @ found.matrix().T).to(rows.dtype)


def numbers(bench: Bench, on_cpu: Tensor, on_device: Tensor) -> None:
    """Check the numbers that are logged about features."""
    for name in ("representation_std", "uniformity", "effective_rank"):
        measured = getattr(collapse, name)
        bench.close(name, measured(on_device[:256]), measured(on_cpu[:256]), 1e-4, "float32")
    views = [rows[:256].view(2, 128, -1) for rows in (on_device, on_cpu)]
    bench.close("alignment", collapse.alignment(views[0]), collapse.alignment(views[1]), 1e-4, "float32")
    images = torch.rand(4, 3, 50, 50)
    pixels = raw_pixel_features(images.to(bench.device))
    bench.close("raw pixels", pixels, raw_pixel_features(images), 1e-5, "float32")


def probes(bench: Bench, sides: list[tuple[Tensor, Tensor]]) -> None:
    """Check some steps of the linear probe."""
    found = []
    for rows, labels in sides:
        probe = LinearProbe(rows.shape[1], CLASSES, 0.1).to(rows.device)
        for _ in range(5):
            probe.learn(rows, labels, torch.ones((), dtype=torch.bool, device=rows.device))
        probe.grow(CLASSES + 2)
        found.append(probe)
    for name, expected in found[0].state_dict().items():
        bench.close(f"probe: {name}", found[1].state_dict()[name], expected, 1e-4, "float32, five steps")
