from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from manyview_server.learn.losses import info_nce
from manyview_server.learn.methods import Moment
from manyview_server.learn.methods.contrastive.moco import MoCo, MoCoSettings

START = Moment(step=0, total_steps=10)
SMALL = {"backbone": "resnet9", "backbone_width": 0.125, "image_size": 16, "batch_size": 8, "projection_dim": 16}
YES = torch.tensor(True)


def moco(**overrides: object) -> MoCo:
    torch.manual_seed(0)
    return MoCo(MoCoSettings(**SMALL, memory_bank_size=24, **overrides))  # type: ignore[arg-type]


def a_pass(method: MoCo, network: torch.nn.Module, images: Tensor) -> Tensor:
    return F.normalize(network["head"](network["encoder"](images)), dim=1)


@pytest.fixture
def views() -> Tensor:
    return torch.randn(2, 8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_the_teacher_begins_as_the_student() -> None:
    method = moco()
    for name, value in method.encoder.state_dict().items():
        assert torch.equal(method.teacher["encoder"].state_dict()[name], value)


def test_one_sided_the_query_is_view_0_and_the_key_is_the_teachers_of_view_1(views: Tensor) -> None:
    method = moco(symmetric=False, temperature=0.3)
    method.bank.enqueue(F.normalize(torch.randn(10, 16), dim=1), torch.arange(100, 110))
    output = method.forward_loss([views], torch.arange(8), START)
    query = method.head(method.encoder(views[0]))
    key = a_pass(method, method.teacher, views[1])
    torch.testing.assert_close(output.loss, info_nce(query, key, method.bank.keys, 10, 0.3))
    assert len(output.representation) == 8


def test_symmetric_gives_each_view_both_roles(views: Tensor) -> None:
    method = moco(symmetric=True, temperature=0.3)
    method.bank.enqueue(F.normalize(torch.randn(10, 16), dim=1), torch.arange(100, 110))
    loss = method.forward_loss([views], torch.arange(8), START).loss
    queries = method.head(method.encoder(views.flatten(0, 1)))
    keys = a_pass(method, method.teacher, views.flatten(0, 1))
    sides = [info_nce(queries[:8], keys[8:], method.bank.keys, 10, 0.3)]
    sides += [info_nce(queries[8:], keys[:8], method.bank.keys, 10, 0.3)]
    torch.testing.assert_close(loss, sum(sides) / 2)


def test_the_head_has_batch_norms_unless_told_otherwise() -> None:
    def norms(method: MoCo) -> int:
        return sum(isinstance(layer, torch.nn.BatchNorm1d) for layer in method.head.modules())

    assert norms(moco()) == 2
    assert moco().head[0].weight.shape == (64, 64), "the features' width"
    assert norms(moco(projection_batch_norm=False)) == 0


def test_no_gradient_reaches_the_teacher(views: Tensor) -> None:
    method = moco()
    method.bank.enqueue(F.normalize(torch.randn(10, 16), dim=1), torch.arange(100, 110))
    method.forward_loss([views], torch.arange(8), START).loss.backward()
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    assert all(parameter.grad is not None for parameter in method.encoder.parameters())


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_bank_takes_the_teachers_keys_of_view_1_after_the_step(views: Tensor, symmetric: bool) -> None:
    method = moco(symmetric=symmetric)
    output = method.forward_loss([views], torch.arange(8), START)
    assert output.loss.item() == pytest.approx(0, abs=1e-6)
    assert method.bank.filled == 0
    seen = views.flatten(0, 1) if symmetric else views[1]
    expected = a_pass(method, method.teacher, seen)[: 8 if not symmetric else None][-8:]
    method.after_step(START, YES, output.carry)
    assert method.bank.filled == 8
    assert method.bank.image_ids[:8].tolist() == list(range(8))
    torch.testing.assert_close(method.bank.keys[:8], expected)


def test_the_teacher_follows_along_the_schedule() -> None:
    def distance_left(step: int) -> float:
        method = moco(ema_momentum=0.5, ema_momentum_end=1.0)
        carry = {"keys": torch.ones(8, 16), "image_ids": torch.arange(8)}
        with torch.no_grad():
            method.head[0].weight.add_(1)
        method.after_step(Moment(step=step, total_steps=11), YES, carry)
        return (method.head[0].weight - method.teacher["head"][0].weight).mean().item()

    assert [distance_left(step) for step in (0, 5, 10)] == pytest.approx([0.5, 0.75, 1.0])


def test_a_bank_left_open_is_chosen_from_the_data_set() -> None:
    settings = MoCoSettings(**SMALL)  # type: ignore[arg-type]
    assert MoCo(settings.for_num_images(100)).bank.keys.shape == (8, 16), "one batch, for only 100 images"
    assert MoCo(settings.for_num_images(1000)).bank.keys.shape == (48, 16)
