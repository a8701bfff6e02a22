from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from manyview_server.learn.modules.prototypes import UnitPrototypes, WeightNormalised, usage


def test_weight_normalised_outputs_are_cosines_whatever_the_lengths() -> None:
    layer = WeightNormalised(6, 10)
    z = torch.randn(4, 6)
    expected = F.cosine_similarity(z[:, None], layer.weight[None], dim=2)
    torch.testing.assert_close(layer(z), expected)
    with torch.no_grad():
        layer.weight.mul_(3)
    torch.testing.assert_close(layer(5 * z), expected)


def test_it_is_torchs_weight_norm_with_all_lengths_one_and_its_gradient_turns_prototypes() -> None:
    layer = WeightNormalised(6, 10)
    theirs = torch.nn.Linear(6, 10, bias=False)
    theirs.load_state_dict(layer.state_dict())
    torch.nn.utils.parametrizations.weight_norm(theirs)
    magnitude, direction = theirs.parametrizations.weight.original0, theirs.parametrizations.weight.original1
    with torch.no_grad():
        magnitude.fill_(1)
    z, target = torch.randn(4, 6), torch.randn(4, 10)
    (layer(z) * target).sum().backward()
    (theirs(F.normalize(z, dim=1)) * target).sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, direction.grad)
    along = (layer.weight.grad * layer.weight).sum(1)
    torch.testing.assert_close(along, torch.zeros(10), atol=1e-5, rtol=0)
    assert list(layer.state_dict()) == ["weight"]


def test_cosines_are_float32_under_autocast() -> None:
    layer = WeightNormalised(6, 10)
    z = torch.randn(4, 6).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(z)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, layer(z.float()))


def test_unit_prototypes_have_length_one_at_first_and_again_after_an_accepted_update() -> None:
    layer = UnitPrototypes(6, 10)
    torch.testing.assert_close(layer.weight.norm(dim=1), torch.ones(10))
    with torch.no_grad():
        layer.weight.mul_(torch.arange(1.0, 11)[:, None])
    grown = layer.weight.clone()
    layer.renormalise(torch.tensor(False))
    assert torch.equal(layer.weight, grown)
    layer.renormalise(torch.tensor(True))
    torch.testing.assert_close(layer.weight, F.normalize(grown, dim=1))


def test_scores_of_unit_projections_are_their_cosines_in_float32_whatever_autocast_says() -> None:
    layer = UnitPrototypes(6, 10)
    z = F.normalize(torch.randn(4, 6), dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        scores = layer(z)
    torch.testing.assert_close(scores, F.cosine_similarity(z[:, None], layer.weight[None], dim=2))
    assert scores.dtype == torch.float32


@pytest.mark.parametrize(
    ("logits", "entropy", "used"),
    [
        (torch.zeros(8, 4), math.log(4), 4),  # none chosen
        (100 * F.one_hot(torch.zeros(8, dtype=torch.int64), 4), 0, 1),  # always the same
        (100 * F.one_hot(torch.arange(8) % 4, 4), 0, 4),  # each surely, all equally
        (100 * F.one_hot(torch.arange(8) % 2, 4).view(2, 4, 4), 0, 2),
    ],
)
def test_usage_tells_how_sure_the_choice_is_and_how_many_serve(logits: Tensor, entropy: float, used: float) -> None:
    measured = usage(logits.float())
    assert measured["prototype_entropy"].item() == pytest.approx(entropy, abs=1e-6)
    assert measured["prototypes_used"].item() == pytest.approx(used, rel=1e-6)
