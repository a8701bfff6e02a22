from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from manyview_server.configuration import InvalidConfiguration
from manyview_server.learn.losses import dino as dino_loss
from manyview_server.learn.methods import Moment, build_method, resolve
from manyview_server.learn.methods.distillation.dino import DINO, DINOSettings
from manyview_server.learn.optimizers import Sgd, parameter_groups
from manyview_server.learn.step import train_step

START = Moment(step=0, total_steps=11)
SMALL = {
    "backbone": "resnet9",
    "backbone_width": 0.125,
    "image_size": 16,
    "batch_size": 8,
    "projection_hidden_dim": 32,
    "projection_dim": 16,
    "num_prototypes": 24,
}
YES, NO = torch.tensor(True), torch.tensor(False)


def a_dino(**overrides: object) -> DINO:
    torch.manual_seed(0)
    return DINO(DINOSettings(**{**SMALL, **overrides}))  # type: ignore[arg-type]


def a_step(method: DINO, views: list[Tensor], moment: Moment) -> None:
    train_step(method, Sgd(parameter_groups(method, 0.0), 0.1, momentum=0.9), views, torch.arange(8), moment)


@pytest.fixture
def views() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count, 8, 3, size, size, generator=generator) for count, size in ((2, 16), (3, 8))]


def test_student_and_teacher_begin_alike_and_the_center_at_zero() -> None:
    method = a_dino()
    for name, value in method.teacher.state_dict().items():
        assert torch.equal(value, method.state_dict()[name])
    assert torch.equal(method.center, torch.zeros(24))


def test_the_loss_compares_all_views_with_what_the_teacher_says_of_the_whole_ones(views: list[Tensor]) -> None:
    method = a_dino(student_temperature=0.2, teacher_temperature=0.05)
    method.center.normal_()
    output = method.forward_loss(views, torch.arange(8), START)
    h = torch.cat([method.encoder(views[0].flatten(0, 1)), method.encoder(views[1].flatten(0, 1))])
    student = method.prototypes(method.head(h)).view(5, 8, 24)
    teacher = method.teacher(views[0].flatten(0, 1)).view(2, 8, 24)
    expected = dino_loss(student, teacher, method.center, student_temperature=0.2, teacher_temperature=0.05)
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.representation, h[:16])
    assert output.projection is not None
    torch.testing.assert_close(output.projection, method.head(h)[:16])


def test_the_student_sees_each_size_in_one_pass_and_the_teacher_the_whole_views(views: list[Tensor]) -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []
    method = a_dino()
    for name, encoder in (("student", method.encoder), ("teacher", method.teacher.get_submodule("encoder"))):
        encoder.register_forward_pre_hook(lambda _, args, name=name: seen.append((name, tuple(args[0].shape))))
    method.forward_loss(views, torch.arange(8), START)
    assert seen == [("student", (16, 3, 16, 16)), ("student", (24, 3, 8, 8)), ("teacher", (16, 3, 16, 16))]


def test_no_gradient_reaches_the_teacher(views: list[Tensor]) -> None:
    method = a_dino()
    method.forward_loss(views, torch.arange(8), START).loss.backward()
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    students = [method.encoder, method.head, method.prototypes]
    assert all(parameter.grad is not None for part in students for parameter in part.parameters())


def test_the_center_follows_the_mean_of_the_teachers_outputs_where_the_step_is_accepted(views: list[Tensor]) -> None:
    method = a_dino(center_momentum=0.75)
    mean = method.teacher(views[0].flatten(0, 1)).mean(0)
    carry = method.forward_loss(views, torch.arange(8), START).carry
    method.after_step(START, NO, carry)
    assert torch.equal(method.center, torch.zeros(24))
    method.after_step(START, YES, carry)
    torch.testing.assert_close(method.center, 0.25 * mean)
    assert "center" in method.state_dict()


def test_prototypes_rest_in_the_first_epochs_while_all_else_learns(views: list[Tensor]) -> None:
    method = a_dino(frozen_prototypes_epochs=2.0)
    for step, rests in ((0, True), (7, True), (8, False)):
        prototypes, head = method.prototypes.weight.clone(), method.head[0].weight.clone()
        a_step(method, views, Moment(step=step, total_steps=20, steps_per_epoch=4))
        assert torch.equal(prototypes, method.prototypes.weight) == rests
        assert not torch.equal(head, method.head[0].weight)


@pytest.mark.parametrize(("step", "temperature"), [(0, 0.04), (4, 0.055), (8, 0.07), (100, 0.07)])
def test_the_teachers_temperature_warms_up_over_epochs(views: list[Tensor], step: int, temperature: float) -> None:
    moment = Moment(step=step, total_steps=101, steps_per_epoch=4)
    warming = a_dino(teacher_temperature_start=0.04, teacher_temperature=0.07, teacher_temperature_warmup_epochs=2.0)
    constant = a_dino(teacher_temperature=temperature)
    losses = [method.forward_loss(views, torch.arange(8), moment).loss for method in (warming, constant)]
    torch.testing.assert_close(*losses)


def test_the_teacher_follows_along_a_cosine_that_ends_where_it_stands_still(views: list[Tensor]) -> None:
    def distance_left(step: int, **overrides: Any) -> float:
        method = a_dino(ema_momentum=0.5, **overrides)
        carry = method.forward_loss(views, torch.arange(8), START).carry
        with torch.no_grad():
            for part in (method.encoder, method.head, method.prototypes):
                for parameter in part.parameters():
                    parameter.add_(1)
        method.after_step(Moment(step=step, total_steps=11), YES, carry)
        theirs = method.teacher.named_parameters()
        distances = [(method.get_parameter(name) - value).mean() for name, value in theirs]
        assert torch.stack(distances).std() < 1e-6
        return distances[0].item()

    assert [distance_left(step) for step in (0, 5, 10)] == pytest.approx([0.5, 0.75, 1.0])
    assert [distance_left(step, ema_momentum_end=None) for step in (0, 10)] == pytest.approx([0.5, 0.5])


def test_the_share_and_the_sureness_of_the_prototypes_are_told(views: list[Tensor]) -> None:
    scalars = a_dino().forward_loss(views, torch.arange(8), START).scalars
    assert 0 < scalars["prototype_entropy"] < math.log(24)
    assert 1 < scalars["prototypes_used"] < 24


def test_a_vision_transformer_sees_both_sizes(views: list[Tensor]) -> None:
    method = a_dino(backbone="vit_tiny", backbone_width=0.3, patch_size=4)
    output = method.forward_loss(views, torch.arange(8), START)
    output.loss.backward()
    assert output.representation.shape == (16, 64)
    assert output.loss.isfinite()


def test_by_default_it_builds_for_small_images_and_for_large_ones() -> None:
    for image_size, backbone in ((32, "resnet9"), (64, "vit_tiny"), (224, "vit_tiny")):
        settings = resolve("dino", {"image_size": image_size, "backbone": backbone, "views": {"preset": "dino"}})
        assert isinstance(build_method(settings, 1000), DINO)


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"teacher_temperature": 0}, "teacher_temperature"),
        ({"teacher_temperature_start": 0.01}, "teacher_temperature_start"),
        ({"num_prototypes": 1}, "num_prototypes"),
        ({"center_momentum": 1.5}, "center_momentum"),
        ({"views": {"pipelines": [{"count": 1}, {"count": 2, "size_fraction": 0.5}]}}, "views.pipelines"),
    ],
)
def test_what_cannot_be_is_refused_by_name(overrides: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        resolve("dino", overrides)
    assert [violation.field for violation in caught.value.violations] == [field]
