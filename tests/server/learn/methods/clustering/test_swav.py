from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from manyview_server.configuration import InvalidConfiguration
from manyview_server.learn.losses import swav as swav_loss
from manyview_server.learn.methods import Moment, resolve
from manyview_server.learn.methods.clustering.swav import SwAV, SwAVSettings
from manyview_server.learn.optimizers import Sgd, parameter_groups
from manyview_server.learn.step import train_step

IDS = torch.arange(8)
SMALL = {
    "backbone": "resnet9",
    "backbone_width": 0.125,
    "image_size": 16,
    "batch_size": 8,
    "projection_dim": 16,
    "num_prototypes": 12,
    "queue_size": 0,
}
YES = torch.tensor(True)


def a_swav(**overrides: object) -> SwAV:
    torch.manual_seed(0)
    return SwAV(SwAVSettings(**{**SMALL, **overrides}))  # type: ignore[arg-type]


def at(step: int) -> Moment:
    return Moment(step=step, total_steps=20, steps_per_epoch=4)


def a_step(method: SwAV, views: list[Tensor], moment: Moment) -> None:
    train_step(method, Sgd(parameter_groups(method, 0.0), 0.1, momentum=0.9), views, IDS, moment)


def projections(method: SwAV, views: list[Tensor]) -> Tensor:
    """(V, B, P)."""
    h = torch.cat([method.encoder(each.flatten(0, 1)) for each in views])
    return F.normalize(method.head(h), dim=1).unflatten(0, (-1, 8))


@pytest.fixture
def views() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count, 8, 3, size, size, generator=generator) for count, size in ((2, 16), (3, 8))]


def test_all_views_predict_the_assignments_of_the_whole_ones(views: list[Tensor]) -> None:
    method = a_swav(temperature=0.2, sinkhorn_epsilon=0.1, sinkhorn_iterations=5)
    output = method.forward_loss(views, IDS, at(0))
    z = projections(method, views)
    scores = z @ method.prototypes.weight.T
    torch.testing.assert_close(
        output.loss, swav_loss(scores[:2], scores[2:], temperature=0.2, epsilon=0.1, iterations=5)
    )
    assert output.projection is not None
    torch.testing.assert_close(output.projection, z[:2].flatten(0, 1))
    assert output.representation.shape == (16, method.encoder.feature_dim)


def test_two_whole_views_are_enough(views: list[Tensor]) -> None:
    method = a_swav()
    loss = method.forward_loss(views[:1], IDS, at(0)).loss
    torch.testing.assert_close(loss, swav_loss(projections(method, views[:1]) @ method.prototypes.weight.T))


def test_each_size_is_one_pass(views: list[Tensor]) -> None:
    seen: list[tuple[int, ...]] = []
    method = a_swav()
    method.encoder.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    method.forward_loss(views, IDS, at(0))
    assert seen == [(16, 3, 16, 16), (24, 3, 8, 8)]


def test_the_queue_holds_the_projections_of_whole_views_from_the_first_step_on(views: list[Tensor]) -> None:
    method = a_swav(queue_size=20)
    z = projections(method, views)
    carry = method.forward_loss(views, IDS, at(0)).carry
    assert method.queue is not None
    assert method.queue.filled == 0
    method.after_step(at(0), YES, carry)
    assert method.queue.filled == 8
    assert method.queue.image_ids[:8].tolist() == IDS.tolist()
    torch.testing.assert_close(method.queue.keys[:8], torch.cat([z[0], z[1]], dim=1))
    assert a_swav().queue is None


def test_from_its_epoch_on_the_queue_takes_part_as_far_as_it_is_filled(views: list[Tensor]) -> None:
    method = a_swav(queue_size=20, queue_start_epoch=2.0)
    first, second = F.normalize(torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(2)), dim=2)
    assert method.queue is not None
    method.queue.enqueue(torch.cat([first, second], dim=1), torch.arange(5))
    method.queue.keys[5:] = torch.nan  # slots that were never filled

    scores = projections(method, views) @ method.prototypes.weight.T
    of_queue = torch.stack([first, second]) @ method.prototypes.weight.T
    without, with_queue = swav_loss(scores[:2], scores[2:]), swav_loss(scores[:2], scores[2:], queue_scores=of_queue)
    assert abs(without - with_queue) > 1e-4
    torch.testing.assert_close(method.forward_loss(views, IDS, at(7)).loss, without)
    torch.testing.assert_close(method.forward_loss(views, IDS, at(8)).loss, with_queue)


def test_no_gradient_reaches_the_prototypes_through_the_queue(views: list[Tensor]) -> None:
    method = a_swav(queue_size=20, queue_start_epoch=0.0)
    method.after_step(at(0), YES, method.forward_loss(views, IDS, at(0)).carry)
    scores, _ = method._queue_scores(2, at(1))
    assert scores is not None
    assert not scores.requires_grad


def test_prototypes_rest_in_the_first_epochs_and_keep_their_length_later(views: list[Tensor]) -> None:
    method = a_swav(frozen_prototypes_epochs=2.0)
    for step, rests in ((0, True), (7, True), (8, False), (9, False)):
        before = method.prototypes.weight.clone()
        a_step(method, views, at(step))
        assert torch.allclose(method.prototypes.weight, before, atol=1e-6) == rests
        torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(12))


def test_a_network_that_tells_nothing_apart_has_the_loss_of_chance(views: list[Tensor]) -> None:
    method = a_swav()
    with torch.no_grad():
        method.head[3].weight.zero_()  # only the bias is left: the same projection for every image
        method.prototypes.weight.copy_(method.prototypes.weight[:1].expand(12, -1))
    output = method.forward_loss(views, IDS, at(0))
    assert output.loss.item() == pytest.approx(math.log(12), abs=1e-5)


def test_the_size_of_the_queue_follows_from_the_data_set_unless_it_is_told() -> None:
    def queue_size(**overrides: object) -> int | None:
        settings: SwAVSettings = resolve("swav", {**SMALL, "queue_size": None, **overrides})  # type: ignore[assignment]
        return settings.for_num_images(1000).queue_size

    assert queue_size() == 48  # a twentieth of the images, in whole batches
    assert queue_size(queue_size=17) == 17
    assert queue_size(queue_size=0) == 0


def test_a_vision_transformer_sees_both_sizes(views: list[Tensor]) -> None:
    output = a_swav(backbone="vit_tiny", backbone_width=0.3, patch_size=4).forward_loss(views, IDS, at(0))
    output.loss.backward()
    assert output.representation.shape == (16, 64)


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"temperature": 0}, "temperature"),
        ({"sinkhorn_epsilon": 0}, "sinkhorn_epsilon"),
        ({"sinkhorn_iterations": 0}, "sinkhorn_iterations"),
        ({"num_prototypes": 1}, "num_prototypes"),
        ({"queue_size": 0, "queue_start_epoch": 5}, "queue_start_epoch"),
        ({"views": {"pipelines": [{"count": 1}, {"count": 2, "size_fraction": 0.5}]}}, "views.pipelines"),
    ],
)
def test_what_cannot_be_is_refused_by_name(overrides: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        resolve("swav", overrides)
    assert [violation.field for violation in caught.value.violations] == [field]
