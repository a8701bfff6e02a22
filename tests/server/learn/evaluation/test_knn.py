from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from manyview_server.learn.evaluation import knn
from manyview_server.learn.evaluation.knn import knn_rankings, raw_pixel_features, topk_accuracy


def ranking(
    features: Tensor, bank: Tensor, labels: Tensor, num_classes: int, k: int = 200, temperature: float = 0.1
) -> Tensor:
    return knn_rankings(features, bank, labels, num_classes, [(k, temperature)])[k, temperature]


def waves(rows: int, columns: int, phase: float) -> Tensor:
    return torch.sin(0.37 * torch.arange(rows * columns, dtype=torch.float64) + phase).view(rows, columns)


@pytest.fixture
def golden() -> tuple[Tensor, Tensor, Tensor]:
    return waves(8, 16, 0.1), waves(30, 16, 0.9), 7 * torch.arange(30) % 5


@pytest.mark.parametrize("chunk", [1, 90, 4_000_000])
def test_the_reference_rankings_whatever_the_chunk(
    golden: tuple[Tensor, Tensor, Tensor], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knn, "CHUNK_LOGITS", chunk)
    assert ranking(*golden, num_classes=5, k=5, temperature=0.1)[:, 0].tolist() == [4, 1, 3, 0, 2, 4, 1, 3]
    found = ranking(*golden, num_classes=5, k=20, temperature=0.07)[:4]
    assert found.tolist() == [[4, 3, 0, 1, 2], [1, 0, 2, 3, 4], [3, 2, 4, 0, 1], [0, 4, 1, 2, 3]]


def test_the_vote_by_hand() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [-1.0, 0.0]])
    labels = torch.tensor([0, 1, 1, 2])
    query = torch.tensor([[3.0, 0.0]])  # cosines 1, 0.8, 0.6: one vote of e^(1/T) against e^(0.8/T) + e^(0.6/T)
    assert ranking(query, bank, labels, 3, k=3, temperature=1.0)[0].tolist() == [1, 0, 2]
    assert ranking(query, bank, labels, 3, k=3, temperature=0.1)[0].tolist() == [0, 1, 2]
    assert ranking(query, bank, labels, 3, k=1)[0].tolist() == [0, 1, 2]


def test_k_is_at_most_the_bank_and_tiny_temperatures_do_not_overflow(golden: tuple[Tensor, Tensor, Tensor]) -> None:
    features, bank, labels = golden
    whole = ranking(features, bank, labels, 5, k=30)
    assert torch.equal(ranking(features, bank, labels, 5, k=1000), whole)
    nearest = labels[(torch.nn.functional.normalize(features) @ torch.nn.functional.normalize(bank).T).argmax(1)]
    coldest = ranking(features.float(), bank.float(), labels, 5, k=30, temperature=1e-4)
    assert torch.equal(coldest[:, 0], nearest)


@pytest.mark.parametrize("chunk", [1, 4_000_000])
def test_several_k_and_temperatures_at_once_are_what_each_is_alone(
    golden: tuple[Tensor, Tensor, Tensor], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knn, "CHUNK_LOGITS", chunk)
    votes = [(k, t) for k in (5, 20, 1000) for t in (0.1, 0.07)]
    rankings = knn_rankings(*golden, 5, votes)
    assert list(rankings) == votes
    for (k, temperature), found in rankings.items():
        assert torch.equal(found, ranking(*golden, 5, k, temperature))
    assert rankings[5, 0.1][:, 0].tolist() == [4, 1, 3, 0, 2, 4, 1, 3]
    assert rankings[20, 0.07][0].tolist() == [4, 3, 0, 1, 2]
    best = knn_rankings(*golden, 5, [(20, 0.07)], best=2)[20, 0.07]
    assert torch.equal(best, rankings[20, 0.07][:, :2])


def test_similarities_are_taken_once(golden: tuple[Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    topk: Any = Tensor.topk

    def counted(*given: Any, **named: Any) -> Any:
        calls.append(given)
        return topk(*given, **named)

    monkeypatch.setattr(Tensor, "topk", counted)
    knn_rankings(*golden, 5, [(5, 0.1), (20, 0.07)])
    assert len(calls) == 1


def test_top1_is_the_share_of_right_answers() -> None:
    bank, labels = torch.eye(4), torch.arange(4)
    queries = torch.eye(4)
    found = ranking(queries, bank, labels, 4, k=1)
    assert topk_accuracy(found, torch.tensor([0, 1, 2, 0]), 1).item() == 0.75
    assert topk_accuracy(ranking(queries[:1], bank, labels, 4), torch.tensor([0]), 1).item() == 1


def test_a_label_among_the_first_k_counts() -> None:
    rankings = torch.tensor([[2, 0, 1], [0, 1, 2], [1, 0, 2], [0, 2, 1]])
    labels = torch.tensor([2, 1, 2, 0])  # at places 1, 2, 3 and 1
    assert [topk_accuracy(rankings, labels, k).item() for k in (1, 2, 3, 5)] == [0.5, 0.75, 1, 1]
    with pytest.raises(ValueError, match="k must be at least 1, not 0"):
        topk_accuracy(rankings, labels, 0)
    with pytest.raises(ValueError, match="rankings must be"):
        topk_accuracy(rankings, labels[:-1], 1)


def test_what_does_not_fit_is_refused(golden: tuple[Tensor, Tensor, Tensor]) -> None:
    features, bank, labels = golden
    with pytest.raises(ValueError, match="the bank must be"):
        ranking(features, bank[:0], labels[:0], 5)
    with pytest.raises(ValueError, match="the bank must be"):
        ranking(features, bank, labels[:-1], 5)
    with pytest.raises(ValueError, match=r"features must be \(Q, 16\)"):
        ranking(features[:, :3], bank, labels, 5)
    with pytest.raises(ValueError, match="k and temperature"):
        ranking(features, bank, labels, 5, k=0)
    with pytest.raises(ValueError, match="k and temperature"):
        ranking(features, bank, labels, 5, temperature=0)
    with pytest.raises(ValueError, match="at least one"):
        knn_rankings(features, bank, labels, 5, [])
    with pytest.raises(ValueError, match=r"k and temperature must be above 0, not 0 and 0\.1"):
        knn_rankings(features, bank, labels, 5, [(5, 0.1), (0, 0.1)])
    with pytest.raises(ValueError, match="rankings must be"):
        topk_accuracy(ranking(features[:0], bank, labels, 5), labels[:0], 1)


def test_no_queries_give_no_rankings(golden: tuple[Tensor, Tensor, Tensor]) -> None:
    features, bank, labels = golden
    assert ranking(features[:0], bank, labels, 5).shape == (0, 5)


def test_raw_pixels_are_kept_while_small_and_averaged_down_when_large() -> None:
    small = torch.randn(2, 3, 8, 6)
    assert torch.equal(raw_pixel_features(small), small.flatten(1))
    large = torch.arange(4 * 4, dtype=torch.float32).view(1, 1, 4, 4).expand(1, 3, 4, 4)
    assert raw_pixel_features(large, largest_side=2).tolist() == [[2.5, 4.5, 10.5, 12.5] * 3]
