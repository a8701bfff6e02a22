"""A trainer starts, is watched and stopped, and its ending says what happened."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any, cast

from manyview_server.messages.message import Message
from manyview_server.messages.training import ImagesAdded, StartTraining
from manyview_server.supervise.trainers.attempt import Ending, Patience, TrainerAttempt
from manyview_server.supervise.trainers.reports import TrainerReports

START = StartTraining(
    train_job="job",
    attempt=1,
    settings={},
    dataset_dir="",
    checkpoint_dir="/dev/null/no-folder",
    resume_from="",
    device="cpu",
    num_threads=1,
    cache_bytes=0,
)


class Heard:
    """Takes the reports and keeps them."""

    longest_step_s = 0.0

    def __init__(self) -> None:
        self.kinds: list[str] = []

    async def take(self, message: Message) -> None:
        self.kinds.append(type(message).__name__)


def attempt(command: tuple[str, ...], heard: Heard | None = None) -> TrainerAttempt:
    reports = cast(TrainerReports, heard or Heard())
    return TrainerAttempt(START, reports, command=command, patience=Patience(stop_s=2, exit_s=0.5))


async def test_an_attempt_stopped_before_it_runs_starts_no_process() -> None:
    stopped = attempt(("/no-such-program",))
    stopped.stop()
    stopped.stop()
    assert await stopped.run() == Ending(outcome="stopped")


async def test_a_missing_program_is_a_death_whose_message_shows_no_path() -> None:
    ending = await attempt(("/no-such-program",)).run()
    assert (ending.outcome, ending.reason) == ("died", "WORKER_START")
    assert "No such file" in ending.message
    assert "no-such-program" not in ending.message


async def test_a_trainer_that_fails_by_an_exception_is_dead_with_its_exit_status(scripted: Any) -> None:
    heard = Heard()
    ending = await attempt(scripted(trainer={"steps": 0}), heard).run()
    assert heard.kinds == ["TrainingStarted"]
    assert (ending.outcome, ending.reason) == ("died", "TRAINER_DIED")
    assert "exit status 1" in ending.message


async def test_the_trainer_s_own_word_is_the_ending(scripted: Any) -> None:
    heard = Heard()
    ending = await attempt(scripted(trainer={"steps": 2, "fail": "CONFIG_INVALID"}), heard).run()
    assert ending == Ending(outcome="failed", reason="CONFIG_INVALID", message="it is said", hint="do otherwise")
    assert heard.kinds == ["TrainingStarted", *["Heartbeat", "ScalarsLogged"] * 2, "TrainingEnded"]


async def test_a_trainer_that_takes_too_long_to_stop_is_killed_and_that_is_said(scripted: Any) -> None:
    stubborn = attempt(scripted(trainer={"steps": 100_000, "step_s": 0.01, "ignore_stop": True}))
    running = asyncio.create_task(stubborn.run())
    async with asyncio.timeout(20):
        while not await stubborn.send(ImagesAdded(blobs=(b"",))):
            await asyncio.sleep(0.02)
        stubborn.stop()
        await asyncio.sleep(0.2)
        assert not running.done()
        ending = await running
    assert ending.outcome == "stopped"
    assert "it took more than 2 s to stop" in ending.message


async def test_a_trainer_that_was_stopped_together_with_the_server_is_not_silent(scripted: Any) -> None:
    heard = Heard()
    patience = Patience(silence_s=2, stop_s=2, exit_s=0.5)
    trainer = {"steps": 6, "step_s": 0.1, "fail": "CONFIG_INVALID"}
    watched = TrainerAttempt(START, cast(TrainerReports, heard), command=scripted(trainer=trainer), patience=patience)
    running = asyncio.create_task(watched.run())
    async with asyncio.timeout(20):
        while not heard.kinds:
            await asyncio.sleep(0.02)
    process = watched._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(3)  # this process is stopped, too
    os.kill(process.pid, signal.SIGCONT)
    assert (await running).outcome == "failed", "by its own word"
