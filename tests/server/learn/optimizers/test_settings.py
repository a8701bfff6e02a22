from __future__ import annotations

import pytest
from torch import nn

from manyview_server.configuration import InvalidConfiguration
from manyview_server.learn import optimizers
from manyview_server.learn.methods import resolve
from manyview_server.learn.optimizers import AdamW, Lars, OptimizerSettings, Schedule, Sgd

NETWORK = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("name", "kind", "rate", "weight_decay"),
    [("sgd", Sgd, 0.12, 5e-4), ("adamw", AdamW, 5e-4, 0.04), ("lars", Lars, 0.3, 1e-6)],
)
def test_each_optimizer_has_rates_of_its_own(name: str, kind: type, rate: float, weight_decay: float) -> None:
    settings = OptimizerSettings(name=name)  # type: ignore[arg-type]
    optimizer = optimizers.build(settings, NETWORK, 256)
    assert type(optimizer) is kind
    assert optimizer.peak_learning_rate == pytest.approx(rate)
    assert optimizer.param_groups[0]["weight_decay"] == weight_decay
    assert optimizers.build(settings, NETWORK, 64).peak_learning_rate == pytest.approx(rate / 4)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_what_is_given_is_what_is_built(name: str) -> None:
    own = {"adamw": {"betas": (0.8, 0.95)}, "lars": {"momentum": 0.5, "trust_coefficient": 0.02}}
    settings = OptimizerSettings(
        name=name,  # type: ignore[arg-type]
        learning_rate=0.7,
        learning_rate_end_factor=0.1,
        warmup_epochs=3,
        weight_decay=0.2,
        weight_decay_end=0.4,
        clip_gradient_norm=3.0,
        **own.get(name, {"momentum": 0.5}),
    )
    optimizer = optimizers.build(settings, NETWORK, 64)
    assert optimizer.peak_learning_rate == 0.7
    assert optimizer.param_groups[0]["weight_decay"] == 0.2
    assert optimizer.schedule == Schedule(warmup_epochs=3, end_factor=0.1, weight_decay=(0.2, 0.4))
    assert optimizer.clip_norm == 3.0
    if isinstance(optimizer, AdamW):
        assert optimizer.betas == (0.8, 0.95)
    else:
        assert optimizer.momentum == 0.5  # type: ignore[attr-defined]
    if isinstance(optimizer, Lars):
        assert optimizer.trust_coefficient == 0.02


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("sgd", "betas", [0.9, 0.95]),
        ("sgd", "trust_coefficient", 0.01),
        ("adamw", "momentum", 0.5),
        ("adamw", "trust_coefficient", 0.01),
        ("lars", "betas", [0.9, 0.95]),
    ],
)
def test_what_the_chosen_optimizer_does_not_have_is_refused(name: str, field: str, value: object) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        resolve("simclr", {"optimizer": {"name": name, field: value}})
    (violation,) = caught.value.violations
    assert violation.field == f"optimizer.{field}"
    assert violation.description.startswith(f"has no effect while optimizer.name is {name!r} (got ")


def test_betas_are_two_shares() -> None:
    with pytest.raises(InvalidConfiguration, match=r"optimizer\.betas\[1\]: must be a number, at least 0 and below 1"):
        resolve("simclr", {"optimizer": {"name": "adamw", "betas": [0.9, 1.0]}})
    with pytest.raises(InvalidConfiguration, match=r"optimizer\.betas: must be a list of exactly 2, each a number"):
        resolve("simclr", {"optimizer": {"name": "adamw", "betas": [0.9]}})
