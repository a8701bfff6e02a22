from __future__ import annotations

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from manyview_server.learn.evaluation.alarms import Alarms
from manyview_server.learn.evaluation.collapse import representation_std
from manyview_server.learn.losses import negative_cosine
from manyview_server.learn.methods.distillation.simsiam import SimSiam, SimSiamSettings
from manyview_server.learn.methods.method import StepOutput, Views
from manyview_server.learn.optimizers import Sgd, parameter_groups
from manyview_server.learn.schedules import Moment
from manyview_server.learn.step import train_step
from manyview_server.learn.views import PRESETS, make_views

BATCH = 16
START = Moment(step=0, total_steps=10)
SMALL = {"backbone": "resnet9", "backbone_width": 0.125, "image_size": 16, "batch_size": 8, "projection_dim": 16}


def simsiam(**overrides: object) -> SimSiam:
    torch.manual_seed(0)
    return SimSiam(SimSiamSettings(**SMALL, **overrides))  # type: ignore[arg-type]


@pytest.fixture
def views() -> Tensor:
    return torch.randn(2, 8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_the_loss_is_the_mean_negative_cosine_of_each_prediction_and_the_other_projection(views: Tensor) -> None:
    method = simsiam()
    output = method.forward_loss([views], torch.arange(8), START)
    z = method.head(method.encoder(views.flatten(0, 1)))
    p = method.predictor(z)
    expected = (negative_cosine(p[:8], z[8:]) + negative_cosine(p[8:], z[:8])) / 2
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.projection, p.detach())
    flipped = method.forward_loss([views.flip(0)], torch.arange(8), START).loss
    assert flipped.item() == pytest.approx(output.loss.item(), abs=1e-5)


def test_the_gradient_is_that_of_constant_targets(views: Tensor) -> None:
    method = simsiam()
    weight = method.encoder.backbone.conv1.weight
    (ours,) = torch.autograd.grad(method.forward_loss([views], torch.arange(8), START).loss, weight)  # type: ignore[arg-type]
    z = method.head(method.encoder(views.flatten(0, 1)))
    targets = z.detach().clone()
    p = method.predictor(z)
    stopped = (negative_cosine(p[:8], targets[8:]) + negative_cosine(p[8:], targets[:8])) / 2
    flowing = (negative_cosine(p[:8], z[8:]) + negative_cosine(p[8:], z[:8])) / 2
    (expected,) = torch.autograd.grad(stopped, weight, retain_graph=True)  # type: ignore[arg-type]
    (other,) = torch.autograd.grad(flowing, weight)  # type: ignore[arg-type]
    torch.testing.assert_close(ours, expected)
    assert not torch.allclose(ours, other, atol=1e-3)


def test_there_is_no_teacher_and_no_bank() -> None:
    assert {name for name, _ in simsiam().named_children()} == {"encoder", "head", "predictor"}


def test_the_projection_is_normed_without_weights_and_the_prediction_is_a_bottleneck() -> None:
    method = simsiam(projection_hidden_dim=40, prediction_hidden_dim=4, projection_layers=2)
    linear = [layer for layer in (*method.head, *method.predictor) if isinstance(layer, torch.nn.Linear)]  # type: ignore[misc]
    assert [tuple(layer.weight.shape) for layer in linear] == [(40, 64), (16, 40), (4, 16), (16, 4)]
    assert [layer.bias is None for layer in linear] == [True, True, True, False]
    assert isinstance(method.head[-1], torch.nn.BatchNorm1d)
    assert not method.head[-1].affine
    assert method.chosen == {"projection_hidden_dim": 40}
    assert simsiam().chosen == {"projection_hidden_dim": 64}, "the features' width"


class WithoutStopGradient(SimSiam):
    """SimSiam without its stop-gradient, as in section 4.1 of the paper."""

    def forward_loss(self, views: Views, image_ids: Tensor, moment: Moment) -> StepOutput:
        h = self.encoder(views[0].flatten(0, 1))
        z = self.head(h)
        p = self.predictor(z)
        (z0, z1), (p0, p1) = z.chunk(2), p.chunk(2)
        loss = (negative_cosine(p0, z1) + negative_cosine(p1, z0)) / 2
        return StepOutput(loss=loss, representation=h.detach(), projection=p.detach())


def alarms_of(kind: type[SimSiam]) -> list[str]:
    """Return the alarms that 220 steps on scans of handwriting raise."""
    torch.manual_seed(0)
    wanted = SMALL | {"batch_size": BATCH, "prediction_hidden_dim": 16}
    method = kind(SimSiamSettings(**wanted))  # type: ignore[arg-type]
    optimizer = Sgd(parameter_groups(method, 5e-4), 0.06 * BATCH / 128, momentum=0.9)  # the default rate
    scans = torch.from_numpy(load_digits().images * 15.9375).to(torch.uint8)  # (N, 8, 8)
    images = scans.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None].expand(-1, 3, -1, -1)
    sizes = torch.full((BATCH, 2), 16)
    alarms, raised = Alarms(), []
    for step in range(220):
        ids = torch.arange(BATCH * step, BATCH * (step + 1)) % len(images)
        views = make_views(
            images[ids], sizes, ids, PRESETS["simsiam"], image_size=16, seed=0, epoch=BATCH * step // len(images)
        )
        result = train_step(method, optimizer, views, ids, Moment(step=step, total_steps=220))
        if step % 10 == 9:
            assert result.projection is not None
            ratio = representation_std(result.projection).item() * math.sqrt(16)
            raised += [alarm.reason for alarm in alarms.see(step + 1, {"projection_std_ratio": ratio})]
    return raised


@pytest.mark.long
@pytest.mark.timeout(240)
def test_without_stop_gradient_it_collapses_and_the_alarm_tells() -> None:
    assert alarms_of(SimSiam) == []
    assert alarms_of(WithoutStopGradient) == ["COLLAPSE"]
