from __future__ import annotations

import math

import pytest
import torch

from manyview_server.learn.step import StepResult
from manyview_server.messages import AlertRaised, Message, ScalarsLogged
from manyview_server.worker.reporter import StepReporter, TrainingFailed, rss_bytes


class Sent:
    """A channel that keeps what is sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def send(self, message: Message) -> None:
        self.messages.append(message)


def result(loss: float = 1.0, accepted: bool = True) -> StepResult:
    return StepResult(
        loss=torch.tensor(loss),
        accepted=torch.tensor(accepted),
        gradient_norm=torch.tensor(2.0),
        learning_rate=0.5,
        representation=torch.randn(64, 16, generator=torch.Generator().manual_seed(0)),
        projection=None,
        scalars={"bank_fill": torch.tensor(0.25)},
    )


def test_a_step_is_reported_when_the_next_one_is_done() -> None:
    sent = Sent()
    reporter = StepReporter(sent, every_steps=1, batch_size=32)
    reporter.step_done(1, 0, result(loss=3.0))
    assert sent.messages == []
    reporter.step_done(2, 0, result())
    (first,) = sent.messages
    assert isinstance(first, ScalarsLogged)
    assert (first.step, first.values["loss"], first.values["bank_fill"]) == (1, 3.0, 0.25)
    assert first.values["learning_rate"] == 0.5
    assert 0.9 < first.values["representation_std_ratio"] < 1.1
    assert first.values["memory_bytes"] > 1e6
    reporter.flush()
    reporter.flush()
    assert [message.step for message in sent.messages] == [1, 2]


def test_only_every_nth_step_is_reported_and_its_rate_is_that_of_all_steps_between() -> None:
    sent = Sent()
    reporter = StepReporter(sent, every_steps=4, batch_size=32)
    for step in range(1, 9):
        reporter.step_done(step, 0, result())
    reporter.flush()
    assert [message.step for message in sent.messages] == [4, 8]
    values = sent.messages[0].values
    assert values["images_per_second"] == pytest.approx(32 * 1000 / values["step_ms"])


def test_time_spent_elsewhere_is_not_counted() -> None:
    sent = Sent()
    reporter = StepReporter(sent, every_steps=1, batch_size=1)
    reporter.exclude(1e9)
    reporter.step_done(1, 0, result())
    reporter.flush()
    assert sent.messages[0].values["images_per_second"] == pytest.approx(1e9)


@pytest.mark.parametrize(
    ("bad", "what"), [(result(math.nan, False), "the loss of step 7"), (result(1.0, False), "the gradient of step 7")]
)
def test_a_step_that_is_not_finite_is_skipped_counted_and_told_once(bad: StepResult, what: str) -> None:
    sent = Sent()
    reporter = StepReporter(sent, every_steps=2, batch_size=1)
    for step in range(5, 12):
        reporter.step_done(step, 0, bad if step in (7, 8, 10) else result())
    reporter.flush()
    (alert,) = [message for message in sent.messages if isinstance(message, AlertRaised)]
    assert (alert.step, alert.reason) == (7, "NON_FINITE_STEP")
    assert what in alert.message
    rows = {message.step: message.values for message in sent.messages if isinstance(message, ScalarsLogged)}
    assert {step: values["skipped_steps"] for step, values in rows.items()} == {6: 0, 8: 2, 10: 3}
    assert "loss" in rows[6]
    assert all(math.isfinite(value) for values in rows.values() for value in values.values())


def test_three_steps_in_a_row_that_are_not_finite_end_training_even_if_none_is_one_to_report() -> None:
    reporter = StepReporter(Sent(), every_steps=100, batch_size=1)
    for step in (6, 7, 8):
        reporter.step_done(step, 0, result(math.nan, False))
    with pytest.raises(TrainingFailed, match="loss of step 8") as failed:
        reporter.step_done(9, 0, result())
    assert failed.value.reason == "NON_FINITE_LOSS"
    assert failed.value.hint


def test_resident_memory_is_that_of_this_process() -> None:
    before = rss_bytes()
    held = torch.ones(30_000_000)
    assert rss_bytes() - before > 100_000_000
    assert held[0] == 1
