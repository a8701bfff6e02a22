from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable

import pytest

from manyview_server.learn.evaluation.alarms import Alarm, Alarms

Told = list[tuple[int, str]]


def raised(readings: Iterable[tuple[int, dict[str, float]]], alarms: Alarms | None = None) -> list[tuple[int, Alarm]]:
    alarms = alarms or Alarms()
    return [(step, alarm) for step, scalars in readings for alarm in alarms.see(step, scalars)]


def reasons(found: list[tuple[int, Alarm]]) -> Told:
    return [(step, alarm.reason) for step, alarm in found]


def run(
    value: Callable[[int], float], last: int = 1000, every: int = 10, name: str = "projection_std_ratio"
) -> list[tuple[int, dict[str, float]]]:
    return [(step, {name: value(step)}) for step in (1, *range(every, last + 1, every))]


def falls(after: int, to: float, start: float = 0.8) -> Callable[[int], float]:
    return lambda step: to if step > after else start


@pytest.mark.parametrize("name", ["projection_std_ratio", "representation_std_ratio"])
def test_a_spread_that_falls_is_told_once_100_steps_later(name: str) -> None:
    readings = run(falls(after=300, to=0.2), name=name)
    found = raised([(step, {"projection_std_ratio": 0.8, **scalars}) for step, scalars in readings])
    assert reasons(found) == [(410, "COLLAPSE")]
    message = found[0][1].message
    assert ("projections" if name.startswith("projection") else "features") in message
    assert "since step 310" in message
    assert "0.2;" in message
    assert "highest was 0.8" in message
    assert "learning_rate" in found[0][1].hint


@pytest.mark.parametrize(("every", "when"), [(1, 401), (10, 410), (50, 450), (100, 600), (250, 1000)])
def test_it_takes_100_steps_and_three_logged_ones(every: int, when: int) -> None:
    assert reasons(raised(run(falls(after=300, to=0.1), every=every))) == [(when, "COLLAPSE")]


@pytest.mark.parametrize(
    ("start", "to", "is_collapse"),
    [
        (0.8, 0.26, False),  # not below a quarter
        (0.8, 0.24, True),
        (0.3, 0.16, False),  # not below half of the highest
        (0.3, 0.14, True),
        (0.03, 0.03, False),  # an untrained network may begin so
        (0.009, 0.009, True),  # but not as low as this
    ],
)
def test_low_is_a_quarter_of_an_even_spread_and_half_of_the_highest(start: float, to: float, is_collapse: bool) -> None:
    assert bool(raised(run(falls(after=300, to=to, start=start)))) is is_collapse


def test_features_without_projections_may_lie_close_together_but_not_in_one_place() -> None:
    assert raised(run(falls(after=300, to=0.02), name="representation_std_ratio")) == []
    ((step, alarm),) = raised(run(falls(after=300, to=0.009), name="representation_std_ratio"))
    assert (step, alarm.reason) == (410, "COLLAPSE")
    assert "at most 0.01 of" in alarm.message


def test_the_first_100_steps_and_the_warmup_of_the_learning_rate_do_not_count() -> None:
    assert reasons(raised(run(falls(after=10, to=0.1)))) == [(210, "COLLAPSE")]
    assert reasons(raised(run(falls(after=10, to=0.1)), Alarms(warmup_steps=400))) == [(510, "COLLAPSE")]


def test_a_run_that_goes_on_from_another_one_has_its_own_first_100_steps() -> None:
    later = [(step + 5000, scalars) for step, scalars in run(falls(after=10, to=0.1))]
    assert reasons(raised(later, Alarms(first_step=5000))) == [(5210, "COLLAPSE")]
    assert reasons(raised(later, Alarms(first_step=5000, warmup_steps=400))) == [(5210, "COLLAPSE")]


def test_who_recovers_in_time_is_not_spoken_of_and_who_falls_again_is_told_again() -> None:
    dip = run(lambda step: 0.05 if step <= 190 else 0.4, last=1000)
    assert raised([(1, {"projection_std_ratio": 0.5}), *dip[1:]]) == []
    twice = run(lambda step: 0.8 if step % 500 < 250 else 0.1, last=1000)
    assert reasons(raised(twice)) == [(350, "COLLAPSE"), (850, "COLLAPSE")]


def test_what_is_not_finite_or_not_there_is_passed_over() -> None:
    readings = run(falls(after=300, to=0.1))
    gaps = [(step, {"projection_std_ratio": math.nan} if step % 30 == 0 else scalars) for step, scalars in readings]
    assert reasons(raised(gaps)) == [(410, "COLLAPSE")]
    assert raised([(step, {"loss": 1.0}) for step in range(0, 1000, 10)]) == []


def at(loss: Callable[[int], float], num_keys: int = 4096) -> list[tuple[int, dict[str, float]]]:
    return [(step, {"loss": loss(step), "chance_loss": math.log(num_keys + 1)}) for step in range(10, 1001, 10)]


def test_a_loss_that_stays_at_chance_is_told_once_300_steps_later() -> None:
    """The reference's MoCo stood still at 8.32, which is ln(4096 + 1)."""
    found = raised(at(lambda step: 8.32))
    assert reasons(found) == [(410, "LOSS_AT_CHANCE")]
    assert "it is 8.32; guessing gives 8.318" in found[0][1].message
    assert reasons(raised(at(lambda step: 9.0))) == [(410, "LOSS_AT_CHANCE")], "worse than guessing"


def test_a_loss_that_falls_below_chance_in_time_is_not_spoken_of() -> None:
    chance = math.log(4097)
    assert raised(at(lambda step: chance if step < 400 else chance - 0.2)) == []
    assert raised(at(lambda step: chance - 0.11)) == []
    assert reasons(raised(at(lambda step: chance - 0.09))) == [(410, "LOSS_AT_CHANCE")]


@pytest.mark.parametrize("cut", [10, 110, 300, 400, 500])
def test_a_run_that_goes_on_from_its_state_says_the_same_at_the_same_steps(cut: int) -> None:
    readings = [(step, {**scalars, "loss": 8.3, "chance_loss": 8.318}) for step, scalars in run(falls(300, 0.1))]
    whole = raised(readings, Alarms(first_step=2, warmup_steps=7))
    before = Alarms(first_step=2, warmup_steps=7)
    first = raised([reading for reading in readings if reading[0] <= cut], before)
    after = Alarms.from_json(json.loads(json.dumps(before.to_json())))
    assert after == before
    assert first + raised([reading for reading in readings if reading[0] > cut], after) == whole
    assert len(whole) == 2
