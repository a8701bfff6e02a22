from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from manyview_server.learn import optimizers, step
from manyview_server.learn.methods import METHODS, Carry, Method, Moment, StepOutput, Views, build_method, resolve
from manyview_server.learn.optimizers import Schedule, Sgd, parameter_groups
from manyview_server.learn.settings import TrainSettings
from manyview_server.learn.step import train_step
from manyview_server.learn.views import make_views
from support.learning.pretend_device import DEVICE, pretending

ONE_OF_EACH_KIND = ("simclr", "moco", "byol", "swav", "mae")
"""Methods with nothing beside their network, with a bank, with a teacher, with prototypes, and with hidden patches."""


class Toy(Method):
    """A method whose loss is chosen by the test."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.factor = factor
        self.calls: list[tuple[int, int, bool, list[int]]] = []

    def forward_loss(self, views: Views, image_ids: Tensor, moment: Moment) -> StepOutput:
        features = self.layer(views[0].mean(dim=(3, 4))[0])
        loss = self.factor * features.square().mean()
        return StepOutput(loss=loss, representation=features.detach(), carry={"image_ids": image_ids})

    def after_step(self, moment: Moment, accept: Tensor, carry: Carry) -> None:
        self.calls.append((moment.step, moment.total_steps, bool(accept), carry["image_ids"].tolist()))


def toy_and_optimizer(factor: float = 1.0) -> tuple[Toy, Sgd]:
    toy = Toy(factor)
    return toy, Sgd(parameter_groups(toy, 0.0), 0.2, momentum=0.9)


def at(step: int, total_steps: int) -> Moment:
    return Moment(step=step, total_steps=total_steps)


VIEWS, IDS = torch.randn(2, 8, 3, 4, 4), torch.arange(8)


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    toy = Toy()
    optimizer = Sgd(parameter_groups(toy, 0.0), 0.2, momentum=0.9, schedule=Schedule(warmup_epochs=2))
    rates = [train_step(toy, optimizer, [VIEWS], IDS, at(step, 6)).learning_rate for step in range(6)]
    assert rates == pytest.approx([0.1, 0.2, 0.2, 0.15, 0.05, 0.0])


def test_the_gradient_norm_is_that_of_all_trained_parameters() -> None:
    toy, optimizer = toy_and_optimizer()
    result = train_step(toy, optimizer, [VIEWS], IDS, at(0, 10))
    expected = torch.cat([parameter.grad.flatten() for parameter in toy.parameters()]).norm()
    torch.testing.assert_close(result.gradient_norm, expected)


def test_the_gradient_is_clipped_to_the_norm_and_reported_as_it_was() -> None:
    free, clipped = Toy(), Toy()
    clipped.load_state_dict(free.state_dict())
    plain = Sgd(parameter_groups(free, 0.0), 0.2, momentum=0.0)
    limited = Sgd(parameter_groups(clipped, 0.0), 0.2, momentum=0.0, clip_norm=0.01)
    before = torch.cat([parameter.detach().flatten() for parameter in clipped.parameters()])
    result, other = (
        train_step(toy, optimizer, [VIEWS], IDS, at(0, 10)) for toy, optimizer in ((clipped, limited), (free, plain))
    )
    assert torch.equal(result.gradient_norm, other.gradient_norm)
    assert result.gradient_norm > 0.02
    after = torch.cat([parameter.detach().flatten() for parameter in clipped.parameters()])
    assert (before - after).norm().item() == pytest.approx(0.2 * 0.01, rel=1e-3)


def test_a_refused_step_leaves_every_kind_of_norm_as_it_was() -> None:
    norms = nn.ModuleList(
        [nn.BatchNorm2d(3), nn.BatchNorm2d(3, momentum=None), nn.InstanceNorm2d(3, track_running_stats=True)]
    )
    before = {name: value.clone() for name, value in norms.state_dict().items()}
    for accepted in (False, True):
        kept = step._NormStatistics(norms)
        for norm in norms:
            norm(torch.randn(4, 3, 5, 5))
        kept.restore_unless(torch.tensor(accepted))
        now = norms.state_dict()
        if accepted:
            assert not any(torch.equal(value, before[name]) for name, value in now.items() if "running" in name)
        else:
            assert all(torch.equal(value, before[name]) for name, value in now.items())


def test_the_method_learns_of_each_step_whether_it_was_accepted_and_what_its_forward_pass_carried() -> None:
    toy, optimizer = toy_and_optimizer()
    train_step(toy, optimizer, [VIEWS], IDS, at(3, 10))
    train_step(toy, optimizer, [VIEWS * float("nan")], IDS, at(4, 10))
    assert toy.calls == [(3, 10, True, IDS.tolist()), (4, 10, False, IDS.tolist())]


def test_a_gradient_that_overflows_under_a_finite_loss_is_refused_too() -> None:
    toy, optimizer = toy_and_optimizer(factor=3e38)
    before = [value.clone() for value in toy.state_dict().values()]
    views = torch.zeros(2, 8, 3, 4, 4)  # equal rows: the norm's output is 0, its gradient's factor 1 / sqrt(eps)
    with torch.no_grad():
        toy.layer[1].bias.fill_(0.5)
    before = [value.clone() for value in toy.state_dict().values()]
    result = train_step(toy, optimizer, [views], IDS, at(0, 10))
    assert torch.isfinite(result.loss)
    assert not result.accepted
    after = list(toy.state_dict().values())
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


NARROW: dict[str, dict[str, int]] = {
    "byol": {"projection_hidden_dim": 64, "prediction_hidden_dim": 64},
    "barlow_twins": {"projection_hidden_dim": 64, "projection_dim": 64},
    "vicreg": {"projection_hidden_dim": 64, "projection_dim": 64},
    "dino": {"projection_hidden_dim": 64, "num_prototypes": 64},
}
"""Heads that take no longer than all the rest."""


def settings_of(method: str) -> TrainSettings:
    masked = method in ("mae", "simmim")
    small = {
        "backbone": "vit_tiny" if masked else "resnet9",
        "backbone_width": 0.125,
        "image_size": 16,
        "batch_size": 8,
    }
    return resolve(method, small | NARROW.get(method, {}))


def losses_of(settings: TrainSettings, device: torch.device) -> list[Tensor]:
    """Take three steps, as the trainer does."""
    method = build_method(settings, 400).to(device)
    optimizer = optimizers.build(settings.optimizer, method, 8)
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images, ids, found = images.to(device), torch.arange(8), []
    for at in range(3):
        views = make_views(images, torch.full((8, 2), 32), ids, settings.views, image_size=16, seed=0, epoch=at)
        moment = Moment(step=at, total_steps=3)
        found.append(train_step(method, optimizer, views, ids.to(device, non_blocking=True), moment).loss)
    return found


@pytest.mark.parametrize(
    "method", [name if name in ONE_OF_EACH_KIND else pytest.param(name, marks=pytest.mark.long) for name in METHODS]
)
def test_steps_of_each_method_ask_a_gpu_for_no_value(method: str) -> None:
    settings = settings_of(method)
    with pretending() as device:
        on_device = losses_of(settings, DEVICE)
        waits = {where for where in device.waits if not where.endswith("elsewhere")}  # the test puts all in its place
        found = [loss.item() for loss in on_device]
    assert waits == set()
    assert found == pytest.approx([loss.item() for loss in losses_of(settings, torch.device("cpu"))], rel=1e-3)
