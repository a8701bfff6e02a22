from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from manyview_server.learn.evaluation import linear_probe
from manyview_server.learn.evaluation.knn import topk_accuracy
from manyview_server.learn.evaluation.linear_probe import LinearProbe

YES, NO = torch.tensor(True), torch.tensor(False)


def batch(num_rows: int = 64, dim: int = 6, num_classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows around a centre for each class, off the origin and of unequal scales."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (num_rows,), generator=generator)
    features = 3 * torch.eye(num_classes, dim)[labels] + 0.3 * torch.randn(num_rows, dim, generator=generator)
    return (features + 5) * torch.logspace(-2, 2, dim), labels


def state(probe: LinearProbe) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in probe.state_dict().items()}


def test_the_first_step_by_hand() -> None:
    """Features -1 and 1 after scaling, p = 1/2 each: the gradient of class 0 is ((0.5 - 1) * -1 + 0.5 * 1) / 2."""
    probe = LinearProbe(1, 2, learning_rate=0.5)
    probe.learn(torch.tensor([[2.0], [6.0]]), torch.tensor([0, 1]), YES)
    assert probe.weight.flatten().tolist() == pytest.approx([-0.25, 0.25], abs=1e-5)
    assert probe.bias.tolist() == [0, 0]
    assert probe.mean.item() == pytest.approx(0.4)
    assert probe.variance.item() == pytest.approx(1 + 0.1 * 3)


def test_it_is_torchs_batch_norm_linear_cross_entropy_and_sgd() -> None:
    probe = LinearProbe(6, 3, learning_rate=0.2)
    norm, linear = torch.nn.BatchNorm1d(6, affine=False), torch.nn.Linear(6, 3)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.2, momentum=0.9)
    for seed in range(5):
        features, labels = batch(seed=seed)
        probe.learn(features, labels, YES)
        optimizer.zero_grad()
        F.cross_entropy(linear(norm(features)), labels).backward()
        optimizer.step()
    torch.testing.assert_close(probe.weight, linear.weight.detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(probe.bias, linear.bias.detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(probe.mean, norm.running_mean)


def test_classes_that_a_line_separates_are_learned_whatever_the_scale_of_the_features() -> None:
    probe = LinearProbe(6, 3, learning_rate=0.1)
    for seed in range(200):
        probe.learn(*batch(seed=seed), YES, factor=1 - seed / 200)
    features, labels = batch(seed=1000)
    assert topk_accuracy(probe.rankings(features), labels, 1).item() > 0.95
    assert torch.equal(probe.rankings(features, best=1), probe.rankings(features)[:, :1])


def test_a_step_that_was_not_accepted_changes_nothing() -> None:
    probe = LinearProbe(6, 3, learning_rate=0.1)
    features, labels = batch()
    probe.learn(features, labels, YES)
    before = state(probe)
    probe.learn(features * torch.nan, labels, NO)
    assert all(torch.equal(old, before[name]) for name, old in probe.state_dict().items())


def test_rows_without_a_label_take_part_in_the_statistics_alone() -> None:
    features, labels = batch()
    probe = LinearProbe(6, 3, learning_rate=0.1)
    probe.learn(features, labels.where(torch.arange(64) < 40, -1), YES)
    norm, linear = torch.nn.BatchNorm1d(6, affine=False), torch.nn.Linear(6, 3)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    F.cross_entropy(linear(norm(features))[:40], labels[:40]).backward()
    assert linear.weight.grad is not None
    assert linear.bias.grad is not None
    torch.testing.assert_close(probe.weight, -0.1 * linear.weight.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(probe.bias, -0.1 * linear.bias.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(probe.mean, norm.running_mean)
    before = state(probe)
    probe.learn(features, torch.full((64,), -1), YES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(probe).items())


def test_one_labelled_row_in_a_batch_teaches_it() -> None:
    """Its features are scaled by those of all rows: by its own alone they would all be zero."""
    probe = LinearProbe(6, 3, learning_rate=0.1)
    for seed in range(400):
        features, labels = batch(seed=seed)
        probe.learn(features, labels.where(torch.arange(64) == seed % 64, -1), YES, factor=1 - seed / 400)
    features, labels = batch(seed=1000)
    assert topk_accuracy(probe.rankings(features), labels, 1).item() > 0.95


def test_rankings_are_made_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    probe, (features, labels) = LinearProbe(6, 3, learning_rate=0.1), batch()
    probe.learn(features, labels, YES)
    whole = probe.rankings(features)
    monkeypatch.setattr(linear_probe, "CHUNK_LOGITS", 30)
    assert torch.equal(probe.rankings(features), whole)


def test_classes_may_be_added_and_what_was_learned_stays() -> None:
    probe = LinearProbe(6, 2, learning_rate=0.1)
    features, labels = batch()
    probe.learn(features, labels.clamp(max=1), YES)
    before = state(probe)
    probe.grow(1)
    assert probe.num_classes == 2
    probe.grow(3)
    assert probe.num_classes == 3
    assert torch.equal(probe.weight[:2], before["weight"])
    assert not probe.weight[2:].any()
    probe.learn(features, labels, YES)
    assert probe.weight[2].any()


def test_its_state_goes_through_a_state_dict() -> None:
    one, other = LinearProbe(6, 3, learning_rate=0.1), LinearProbe(6, 3, learning_rate=0.1)
    one.learn(*batch(seed=1), YES)
    other.load_state_dict(one.state_dict())
    for probe in (one, other):
        probe.learn(*batch(seed=2), YES)
    assert all(torch.equal(tensor, state(other)[name]) for name, tensor in state(one).items())


def test_no_gradient_reaches_the_features() -> None:
    features, labels = batch()
    features.requires_grad_()
    probe = LinearProbe(6, 3, learning_rate=0.1)
    probe.learn(features, labels, YES)
    assert not any(tensor.requires_grad for tensor in probe.state_dict().values())
    assert not list(probe.parameters())


class Operations(TorchDispatchMode):
    """Lists the operations by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(function.__name__.partition(".")[0])
        return function(*args, **(kwargs or {}))


def test_a_step_never_waits_for_the_device() -> None:
    probe = LinearProbe(6, 3, learning_rate=0.1)
    features, labels = batch()
    with Operations() as seen:
        probe.learn(features, labels, YES)
    assert {"addmm", "where"} <= seen.names
    assert not seen.names & {"_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "index"}


@pytest.mark.parametrize("given", [(0, 3, 0.1), (6, 0, 0.1), (6, 3, 0.0)])
def test_what_makes_no_probe_is_refused(given: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="must be above 0, not"):
        LinearProbe(*given)
