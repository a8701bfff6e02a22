"""Jobs go, in any order of events, through legal states only, and all of them come to an end."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyview_server.errors import FailedPrecondition, NotFound
from manyview_server.store.event_payloads import StateChange
from manyview_server.store.job_states import TERMINAL_STATES
from manyview_server.store.jobs.job_verbs import CANCEL, PAUSE, RESUME, Verb
from manyview_server.store.records import Event
from manyview_server.store.store import Store
from manyview_server.supervise.cores import CoreBudget
from manyview_server.supervise.trainers.attempt import Patience
from manyview_server.supervise.trainers.jobs import JobSupervisor
from support.learning.forked import children
from support.workers import scripted_worker

LEGAL = {
    "": {"QUEUED"},
    "QUEUED": {"STARTING", "PAUSED", "CANCELLED"},
    "STARTING": {"RUNNING", "RECOVERING", "PAUSING", "CANCELLING", "FAILED"},
    "RUNNING": {"SUCCEEDED", "FAILED", "RECOVERING", "PAUSING", "CANCELLING"},
    "RECOVERING": {"STARTING", "PAUSING", "CANCELLING"},
    "PAUSING": {"PAUSED", "CANCELLING", "SUCCEEDED"},
    "PAUSED": {"QUEUED", "CANCELLED"},
    "CANCELLING": {"CANCELLED"},
}
VERBS = {"pause": PAUSE, "resume": RESUME, "cancel": CANCEL}
PATIENCE = Patience(stop_s=2, exit_s=1, restart_s=0.01)
COMMAND = scripted_worker.command({"trainer": {"steps": 8, "step_s": 0.02, "checkpoint_every": 2}})

# One example is seconds of real processes.
EXAMPLES = int(os.environ.get("MANYVIEW_SOAK", "6"))

actions = st.lists(
    st.one_of(
        st.just(("create", 0)),
        st.tuples(st.sampled_from(["pause", "resume", "cancel", "continue"]), st.integers(0, 2)),
        st.just(("kill the trainer", 0)),
        st.just(("drain", 0)),
        st.just(("crash", 0)),
        st.tuples(st.just("wait"), st.integers(1, 30)),
    ),
    min_size=3,
    max_size=10,
)


class World:
    """A store, a supervisor over it, and what is done to them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.jobs: list[str] = []
        self.cancelled: set[str] = set()
        self.first_step: dict[str, int] = {}
        self.kills = 0

    async def start(self) -> None:
        self.supervisor = JobSupervisor(self.store, {"cpu": 1 << 20}, CoreBudget(1), command=COMMAND, patience=PATIENCE)
        await self.supervisor.start()

    async def do(self, action: str, number: int) -> None:
        match action:
            case "create":
                name = f"job-{len(self.jobs)}"
                self.jobs.append((await self.store.jobs.create(name, "clothing", "moco", {}, "1")).train_job_id)
                self.supervisor.wake()
            case "cancel" | "pause" | "resume" if number < len(self.jobs):
                await self.ask(self.jobs[number], VERBS[action])
            case "continue" if number < len(self.jobs):
                await self.go_on_from(self.jobs[number])
            case "kill the trainer":
                for pid in children():
                    self.kills += 1
                    os.kill(int(pid), signal.SIGKILL)
            case "drain":
                await self.supervisor.drain()
                await self.start()
            case "crash":
                await self.crash()
                await self.start()
            case "wait":
                await asyncio.sleep(number / 100)

    async def ask(self, name: str, verb: Verb) -> None:
        """The same wish twice is one wish, and the model knows which ones come too late."""
        refusals = []
        for _ in range(2):
            try:
                job = await self.store.jobs.request(name, verb)
            except FailedPrecondition as error:
                refusals.append(error.metadata["state"])
            else:
                assert job.desired == verb.desired
                if verb is CANCEL:
                    self.cancelled.add(name)
        assert not set(refusals) & set(verb.next_states)
        self.supervisor.wake()

    async def go_on_from(self, name: str) -> None:
        """A new job from the newest checkpoint of another, in whatever state that is."""
        try:
            source = await self.store.checkpoints.get(name)
        except NotFound:
            return
        continued = f"job-{len(self.jobs)}"
        self.jobs.append(continued)
        job = await self.store.jobs.create(continued, "clothing", "moco", {}, "1", source=source)
        assert (job.latest_checkpoint, job.continued_from) == (source.step, source.name)
        self.first_step[continued] = source.step
        self.supervisor.wake()

    async def crash(self) -> None:
        """Do what SIGKILL of the front does: nothing is written any more, and the trainers die with it."""
        runs = [run.task for run in self.supervisor._runs.values()]
        tasks = [task for task in (self.supervisor._task, *runs) if task]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def finish(self) -> None:
        async with asyncio.timeout(40):
            while unfinished := await self.store.jobs.unfinished():
                for job in unfinished:
                    if job.desired == "pause":
                        await self.ask(job.train_job_id, RESUME)
                await asyncio.sleep(0.02)
        await self.supervisor.drain()


async def check(world: World) -> None:
    running: list[tuple[float, float]] = []
    for name in world.jobs:
        job = await world.store.jobs.get(name)
        events = await world.store.events.read(name, 0, 10_000)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        state, attempts = "", [0]
        for event, change in state_changes(events):
            assert change.from_state == state
            assert change.to_state in LEGAL[state]
            state = change.to_state
            if state == "STARTING":
                attempts.append(event.attempt)
        assert state == job.state, "the events fold to the row"
        assert state in TERMINAL_STATES
        assert attempts == list(range(len(attempts))), "each start is an attempt of its own"
        if name in world.cancelled:
            assert state == "CANCELLED"
        elif state == "FAILED":
            assert world.kills > 3
        else:
            rows = [event.step for event in await world.store.events.scalar_rows(name)]
            assert rows == list(range(world.first_step.get(name, 0) + 1, 9)), (
                "each step counts once, whatever was lost and repeated"
            )
        running += held_device(events)
    running.sort()
    for (_, end), (start, _) in pairwise(running):
        assert end <= start, "one trainer at a time"


def state_changes(events: Sequence[Event]) -> list[tuple[Event, StateChange]]:
    return [(event, event.payload) for event in events if isinstance(event.payload, StateChange)]


def held_device(events: Sequence[Event]) -> list[tuple[float, float]]:
    """Return the spans from each start of a trainer to the state after which no trainer runs."""
    spans, began = [], 0.0
    for event, change in state_changes(events):
        match change.to_state:
            case "STARTING":
                began = began or event.time
            case "PAUSED" | "CANCELLED" | "SUCCEEDED" | "FAILED" if began:
                spans.append((began, event.time))
                began = 0.0
    return spans


async def play(script: Sequence[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder), reserve_bytes=0)
        try:
            await store.datasets.create("clothing")
            world = World(store)
            await world.start()
            for action, number in [("create", 0), *script]:
                await world.do(action, number)
            await world.finish()
            await check(world)
        finally:
            await store.close()
    assert not children()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(script=actions)
def test_every_order_of_events_leads_through_legal_states_to_an_end(script: Any) -> None:
    asyncio.run(play(script))
