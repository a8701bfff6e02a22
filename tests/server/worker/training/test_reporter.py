from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from manyview_server.learn.evaluation import collapse
from manyview_server.learn.evaluation.alarms import Alarm, Alarms
from manyview_server.learn.step import StepResult
from manyview_server.messages.training import AlertRaised, LogWritten, ScalarsLogged
from manyview_server.worker.training.reporter import StepReporter
from manyview_server.worker.training_failed import TrainingFailed
from support.learning.training import Sent


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def result(
    loss: float = 1.0, accepted: bool = True, representation: Tensor | None = None, projection: Tensor | None = None
) -> StepResult:
    return StepResult(
        loss=torch.tensor(loss),
        accepted=torch.tensor(accepted),
        gradient_norm=torch.tensor(2.0),
        learning_rate=0.5,
        representation=normal(64, 16) if representation is None else representation,
        projection=projection,
        scalars={"bank_fill": torch.tensor(0.25)},
    )


def reporter_for(
    sent: Sent, every_steps: int = 1, batch_size: int = 32, on_collapse: str = "warn", last_step: int = 0
) -> StepReporter:
    return StepReporter(
        sent,
        every_steps=every_steps,
        batch_size=batch_size,
        alarms=Alarms(),
        last_step=last_step,
        on_collapse=on_collapse,
    )


def test_a_step_is_reported_when_the_next_one_is_done() -> None:
    sent = Sent()
    reporter = reporter_for(sent)
    reporter.step_done(2, 0, result(loss=3.0))
    assert sent.received == []
    reporter.step_done(3, 0, result())
    (first,) = sent.of(ScalarsLogged)
    assert sent.received == [first]
    assert (first.step, first.values["loss"], first.values["bank_fill"]) == (2, 3.0, 0.25)
    assert first.values["learning_rate"] == 0.5
    assert 0.9 < first.values["representation_std_ratio"] < 1.1
    assert first.values["memory_bytes"] > 1e6
    reporter.flush()
    reporter.flush()
    assert [message.step for message in sent.of(ScalarsLogged)] == [2, 3]


@pytest.mark.parametrize("first_step", [0, 40])
def test_the_first_step_of_a_job_is_reported_at_once(first_step: int) -> None:
    sent = Sent()
    alarms = Alarms(first_step=first_step)
    reporter = StepReporter(sent, every_steps=100, batch_size=32, alarms=alarms)
    reporter.step_done(first_step + 1, 0, result(loss=3.0))
    ((step, values),) = scalars(sent).items()
    assert (step, values["loss"], values["bank_fill"]) == (first_step + 1, 3.0, 0.25)


def test_a_job_of_two_steps_has_the_scalars_of_both() -> None:
    sent = Sent()
    reporter = reporter_for(sent, every_steps=10, last_step=2)
    reporter.step_done(1, 0, result(loss=3.0))
    reporter.step_done(2, 0, result(loss=2.0))
    reporter.flush()
    assert {step: values["loss"] for step, values in scalars(sent).items()} == {1: 3.0, 2: 2.0}
    assert scalars(sent)[1].keys() == scalars(sent)[2].keys()


def test_only_every_nth_step_is_reported_between_the_first_and_the_last() -> None:
    sent = Sent()
    reporter = reporter_for(sent, every_steps=4, last_step=10)
    for step in range(1, 11):
        reporter.step_done(step, 0, result())
    reporter.flush()
    assert list(scalars(sent)) == [1, 4, 8, 10]


def test_the_rate_is_that_of_all_steps_since_the_last_reported_one() -> None:
    sent = Sent()
    now_s = [0.0]
    reporter = StepReporter(sent, every_steps=4, batch_size=8, alarms=Alarms(), clock=lambda: now_s[0])
    for step in range(1, 5):
        now_s[0] += step
        reporter.step_done(step, 0, result())
    reporter.flush()
    assert {step: values["step_ms"] for step, values in scalars(sent).items()} == {1: 1000.0, 4: 3000.0}
    assert scalars(sent)[4]["images_per_second"] == pytest.approx(8 / 3)


def test_the_alarms_do_not_count_a_last_step_that_is_not_an_nth_one() -> None:
    """The same job with more steps raises the same alarms at the same steps."""
    sent = Sent()
    seen: list[int] = []

    class Watched(Alarms):
        def see(self, step: int, scalars: Mapping[str, float]) -> list[Alarm]:
            seen.append(step)
            return super().see(step, scalars)

    reporter = StepReporter(sent, every_steps=4, batch_size=8, alarms=Watched(), last_step=6)
    for step in range(1, 7):
        reporter.step_done(step, 0, result())
    reporter.flush()
    assert seen == [1, 4]
    assert list(scalars(sent)) == [1, 4, 6]


def test_time_spent_elsewhere_is_not_counted() -> None:
    sent = Sent()
    now_s = [100.0]
    reporter = StepReporter(sent, every_steps=1, batch_size=8, alarms=Alarms(), clock=lambda: now_s[0])
    with reporter.excluded():
        now_s[0] += 1000
    with reporter.waiting_for_data():
        now_s[0] += 1
    now_s[0] += 3
    reporter.step_done(1, 0, result())
    reporter.flush()
    rates = scalars(sent)[1]
    assert (rates["images_per_second"], rates["step_ms"], rates["data_wait_fraction"]) == (2.0, 4000.0, 0.25)


@pytest.mark.parametrize(
    ("bad", "what"), [(result(math.nan, False), "the loss of step 7"), (result(1.0, False), "the gradient of step 7")]
)
def test_a_step_that_is_not_finite_is_skipped_counted_and_told_once(bad: StepResult, what: str) -> None:
    sent = Sent()
    reporter = reporter_for(sent, every_steps=2, batch_size=1)
    for step in range(5, 12):
        reporter.step_done(step, 0, bad if step in (7, 8, 10) else result())
    reporter.flush()
    (alert,) = sent.of(AlertRaised)
    assert (alert.step, alert.reason) == (7, "NON_FINITE_STEP")
    assert what in alert.message
    rows = {message.step: message.values for message in sent.of(ScalarsLogged)}
    assert {step: values["skipped_steps"] for step, values in rows.items()} == {6: 0, 8: 2, 10: 3}
    assert "loss" in rows[6]
    assert all(math.isfinite(value) for values in rows.values() for value in values.values())


def test_three_steps_in_a_row_that_are_not_finite_end_training_even_if_none_is_one_to_report() -> None:
    reporter = reporter_for(Sent(), every_steps=100, batch_size=1)
    for step in (6, 7, 8):
        reporter.step_done(step, 0, result(math.nan, False))
    with pytest.raises(TrainingFailed, match="loss of step 8") as failed:
        reporter.step_done(9, 0, result())
    assert failed.value.reason == "NON_FINITE_LOSS"
    assert failed.value.hint


def scalars(sent: Sent) -> dict[int, dict[str, float]]:
    return {message.step: message.values for message in sent.of(ScalarsLogged)}


def test_a_logged_step_tells_how_its_features_lie() -> None:
    """Two views of 32 images, the second one the first with noise."""
    view = normal(32, 16)
    rows = torch.cat([view, view + 0.1 * normal(32, 16, seed=1)])
    projection = torch.cat([torch.ones(64, 1), 0.01 * normal(64, 7)], dim=1)
    sent = Sent()
    reporter = reporter_for(sent)
    reporter.step_done(1, 0, result(representation=rows, projection=projection))
    reporter.flush()
    values = scalars(sent)[1]
    assert values["representation_std"] == pytest.approx(collapse.representation_std(rows).item())
    assert values["representation_std_ratio"] == pytest.approx(4 * collapse.representation_std(rows).item())
    assert values["projection_std_ratio"] == pytest.approx(8**0.5 * values["projection_std"])
    assert values["projection_std_ratio"] < 0.05
    assert values["alignment"] == pytest.approx(collapse.alignment(rows.view(2, 32, 16)).item())
    assert values["alignment"] < 0.02
    assert values["uniformity"] == pytest.approx(collapse.uniformity(view).item())
    assert values["effective_rank"] == pytest.approx(collapse.effective_rank(view).item())


def test_one_view_has_no_alignment_and_no_projections_no_spread() -> None:
    sent = Sent()
    reporter = reporter_for(sent, batch_size=64)
    reporter.step_done(1, 0, result())
    reporter.flush()
    assert "uniformity" in scalars(sent)[1]
    assert not {"alignment", "projection_std", "projection_std_ratio"} & scalars(sent)[1].keys()


def test_what_grows_with_the_square_of_the_batch_is_taken_of_256_rows() -> None:
    rows = normal(600, 300)
    sent = Sent()
    reporter = reporter_for(sent, batch_size=300)
    reporter.step_done(1, 0, result(representation=rows))
    reporter.flush()
    assert scalars(sent)[1]["effective_rank"] == pytest.approx(collapse.effective_rank(rows[:256]).item())
    assert scalars(sent)[1]["uniformity"] == pytest.approx(collapse.uniformity(rows[:256]).item())


def test_features_that_are_not_finite_are_no_error_and_no_scalar() -> None:
    sent = Sent()
    reporter = reporter_for(sent)
    reporter.step_done(1, 0, result(math.nan, False, representation=torch.full((64, 16), math.nan)))
    reporter.flush()
    assert not {"effective_rank", "representation_std", "uniformity", "alignment"} & scalars(sent)[1].keys()


def collapse_after(step: int, reporter: StepReporter, last: int) -> None:
    for now in range(1, last + 1):
        projection = normal(64, 8) if now <= step else torch.ones(64, 8)
        reporter.step_done(now, 0, result(projection=projection))
    reporter.flush()


@pytest.mark.parametrize(
    ("on_collapse", "alerts", "stops"), [("warn", 1, False), ("stop", 1, True), ("ignore", 0, False)]
)
def test_a_collapse_is_told_or_stops_or_is_ignored(on_collapse: str, alerts: int, stops: bool) -> None:
    sent = Sent()
    reporter = reporter_for(sent, every_steps=10, on_collapse=on_collapse)
    collapse_after(105, reporter, 330)
    found = sent.of(AlertRaised)
    assert [(alert.step, alert.reason) for alert in found] == [(210, "COLLAPSE")] * alerts
    assert all("learning_rate" in alert.message for alert in found)
    assert (reporter.alarm is not None) is stops


def test_a_collapse_between_the_first_step_and_the_first_logged_one_is_seen_too() -> None:
    """The first step's spread is what the later ones are compared with."""
    sent = Sent()
    reporter = reporter_for(sent, every_steps=50)
    for now in range(1, 401):
        spread = 1.0 if now == 1 else 0.2
        projection = torch.cat([torch.ones(64, 1), spread * normal(64, 1)], dim=1)
        reporter.step_done(now, 0, result(projection=projection))
    reporter.flush()
    (alert,) = sent.of(AlertRaised)
    assert (alert.step, alert.reason) == (250, "COLLAPSE")


def test_no_alarm_comes_of_a_step_that_was_skipped() -> None:
    sent = Sent()
    reporter = reporter_for(sent, every_steps=10)
    for now in range(1, 600):
        bad = now % 10 == 0
        reporter.step_done(now, 0, result(accepted=not bad, projection=torch.ones(64, 8) if bad else normal(64, 8)))
    reporter.flush()
    assert {message.reason for message in sent.of(AlertRaised)} == {"NON_FINITE_STEP"}


def test_a_job_that_is_slower_than_planned_raises_an_alert_and_logs_the_end_of_it() -> None:
    """The plan has steps of 0.8 s. Waits for images and excluded times are not steps."""
    sent = Sent()
    now_s = [0.0]
    reporter = StepReporter(
        sent,
        every_steps=10,
        batch_size=8,
        alarms=Alarms(),
        last_step=1_000,
        planned_image_s=0.1,
        clock=lambda: now_s[0],
    )
    for step in range(1, 121):
        with reporter.waiting_for_data():
            now_s[0] += 2.0
        with reporter.excluded():
            now_s[0] += 2.0
        now_s[0] += 60.0 if step == 1 else 3.2 if 40 < step <= 80 else 0.8
        reporter.step_done(step, 0, result())
    (alert,) = sent.of(AlertRaised)
    assert (alert.step, alert.reason) == (50, "SLOWER_THAN_PLANNED")
    assert alert.message.startswith(
        "steps take 4.0 times as long as planned: the job needs about 50 min more, not about 15 min."
    )
    (line,) = sent.of(LogWritten)
    assert (line.level, line.step > 80) == ("info", True)
    assert line.text.startswith("steps are as fast as planned again: ")


def test_the_loss_of_a_first_step_without_negatives_is_not_sent_but_that_of_the_second_step_is() -> None:
    sent = Sent()
    reporter = reporter_for(sent, every_steps=4, last_step=8)
    for step in range(1, 9):
        without = result(loss=0.0 if step == 1 else 3.0)
        chance = {"chance_loss": torch.tensor(0.0 if step == 1 else 3.5)}
        reporter.step_done(step, 0, dataclasses.replace(without, scalars=chance))
    reporter.flush()
    assert {step: values.get("loss") for step, values in scalars(sent).items()} == {1: None, 2: 3.0, 4: 3.0, 8: 3.0}
