from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from manyview_server.learn.methods.distillation.byol import BYOL, BYOLSettings
from manyview_server.learn.schedules import Moment

START = Moment(step=0, total_steps=10)
SMALL = {"backbone": "resnet9", "backbone_width": 0.125, "image_size": 16, "batch_size": 8, "projection_dim": 16}
NARROW = {"projection_hidden_dim": 32, "prediction_hidden_dim": 24}
YES = torch.tensor(True)


def byol(**overrides: object) -> BYOL:
    torch.manual_seed(0)
    return BYOL(BYOLSettings(**SMALL, **(NARROW | overrides)))  # type: ignore[arg-type]


@pytest.fixture
def views() -> Tensor:
    return torch.randn(2, 8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def moved(method: BYOL) -> BYOL:
    """A student that is no longer its teacher."""
    with torch.no_grad():
        for parameter in (*method.encoder.parameters(), *method.head.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method


def test_the_loss_is_the_squared_distance_of_unit_predictions_and_the_teachers_unit_projections_both_ways(
    views: Tensor,
) -> None:
    method = moved(byol())
    output = method.forward_loss([views], torch.arange(8), START)
    images = views.flatten(0, 1)
    q = F.normalize(method.predictor(method.head(method.encoder(images))), dim=1)
    z = F.normalize(method.teacher["head"](method.teacher["encoder"](images)), dim=1)
    one_way, other_way = (q[:8] - z[8:]).square().sum(1), (q[8:] - z[:8]).square().sum(1)
    torch.testing.assert_close(output.loss, one_way.mean() + other_way.mean())
    torch.testing.assert_close(output.projection, method.head(method.encoder(images)).detach())


def test_the_loss_is_the_same_whichever_view_comes_first(views: Tensor) -> None:
    method = moved(byol())
    losses = [method.forward_loss([v], torch.arange(8), START).loss.item() for v in (views, views.flip(0))]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_no_gradient_reaches_the_teacher_and_all_of_the_student_gets_one(views: Tensor) -> None:
    method = byol()
    method.forward_loss([views], torch.arange(8), START).loss.backward()
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    for part in (method.encoder, method.head, method.predictor):
        assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in part.parameters())


def test_the_teacher_begins_as_the_student_has_no_predictor_and_is_part_of_the_state() -> None:
    method = byol()
    assert set(method.teacher) == {"encoder", "head"}
    state = method.state_dict()
    for name in ("encoder.backbone.conv1.weight", "head.0.weight", "head.3.weight"):
        assert torch.equal(state[f"teacher.{name}"], state[name])


def test_the_targets_come_from_the_teacher(views: Tensor) -> None:
    method = byol()
    before = method.forward_loss([views], torch.arange(8), START).loss
    with torch.no_grad():
        method.teacher["head"][3].weight.neg_()
    after = method.forward_loss([views], torch.arange(8), START).loss
    assert after.item() == pytest.approx(8 - before.item(), abs=1e-5), "the opposite of the target"


def test_the_teacher_follows_along_the_schedule_to_a_standstill() -> None:
    def distance_left(step: int) -> float:
        method = byol(ema_momentum=0.5)
        with torch.no_grad():
            method.head[0].weight.add_(1)
        method.after_step(Moment(step=step, total_steps=11), YES, {})
        return (method.head[0].weight - method.teacher["head"][0].weight).mean().item()

    assert [distance_left(step) for step in (0, 5, 10)] == pytest.approx([0.5, 0.75, 1.0])


def test_projection_and_prediction_norm_the_hidden_layer_alone() -> None:
    method = byol()
    for part in (method.head, method.predictor):
        assert sum(isinstance(layer, torch.nn.BatchNorm1d) for layer in part) == 1  # type: ignore[attr-defined]
        assert isinstance(part[-1], torch.nn.Linear)
        assert part[-1].bias is None
