from __future__ import annotations

import math

import pytest
import torch

from manyview_server.learn.step import StepResult
from manyview_server.messages import Message, ScalarsLogged
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
    ("bad", "reason"), [(result(math.nan, False), "NON_FINITE_LOSS"), (result(1.0, False), "NON_FINITE_GRADIENT")]
)
def test_a_refused_step_ends_training_and_is_named_even_if_it_is_not_one_to_report(
    bad: StepResult, reason: str
) -> None:
    sent = Sent()
    reporter = StepReporter(sent, every_steps=100, batch_size=1)
    reporter.step_done(6, 0, result())
    reporter.step_done(7, 0, bad)
    with pytest.raises(TrainingFailed, match="step 7") as failed:
        reporter.step_done(8, 0, result())
    assert failed.value.reason == reason
    assert failed.value.hint


def test_resident_memory_is_that_of_this_process() -> None:
    before = rss_bytes()
    held = torch.ones(30_000_000)
    assert rss_bytes() - before > 100_000_000
    assert held[0] == 1
