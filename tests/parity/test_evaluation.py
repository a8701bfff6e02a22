from __future__ import annotations

import pytest
import torch
from lightly.utils.benchmarking import knn_predict as their_knn_predict
from lightly.utils.debug import std_of_l2_normalized
from torch.nn import functional as F

from manyview_server.learn.evaluation.collapse import representation_std
from manyview_server.learn.evaluation.knn import knn_rankings
from support.learning.agreement import normal


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("size", "classes", "k"), [(30, 3, 1), (30, 5, 7), (200, 10, 200), (500, 10, 20)])
@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
def test_classes_are_ranked_alike_as_far_as_they_have_votes(
    size: int, classes: int, k: int, temperature: float, seed: int
) -> None:
    features, bank = normal(16, 8, seed=seed), normal(size, 8, seed=100 + seed)
    labels = torch.randint(classes, (size,), generator=torch.Generator().manual_seed(seed))
    unit_features, unit_bank = F.normalize(features, dim=1), F.normalize(bank, dim=1)
    ours = knn_rankings(features, bank, labels, classes, [(k, temperature)])[k, temperature]
    theirs = their_knn_predict(unit_features, unit_bank.T, labels, classes, k, temperature)
    neighbors = (unit_features @ unit_bank.T).topk(k).indices
    for row in range(len(features)):
        voted = len(labels[neighbors[row]].unique())  # the order of those without a vote is the reference's to choose
        assert ours[row, :voted].tolist() == theirs[row, :voted].tolist()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("shape", [(2, 1), (2, 3), (8, 16), (256, 128)], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)], ids=str)
def test_the_standard_deviation_of_unit_rows(
    shape: tuple[int, int], dtype: torch.dtype, tolerance: float, seed: int
) -> None:
    z = normal(*shape, seed=seed, dtype=dtype)
    assert representation_std(z).item() == pytest.approx(std_of_l2_normalized(z).item(), abs=tolerance)
