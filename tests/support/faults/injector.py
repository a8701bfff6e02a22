"""Faults of a scenario, drawn from a seed: what happens, when, and to whom."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from support.clients.actors import Actor
from support.service.harness import ServerProcess

WEIGHTS = {
    "kill_uploader": 3,
    "kill_subscriber": 2,
    "kill_caller": 1,
    "kill_server": 3,
    "kill_trainer": 3,
    "kill_embedder": 2,
    "stop_server": 2,
    "stop_trainer": 2,
}
"""The weight with which each is drawn. `stop` is SIGSTOP, and SIGCONT after a while."""

AT_MOST = {"kill_trainer": 3, "kill_server": 2}
"""A job outlives three deaths of its trainer in a row; a server's start costs seconds of the round."""


@dataclass(frozen=True)
class Fault:
    """One fault: `after_s` seconds after the one before; `hold_s` is how long it lasts, where it lasts."""

    kind: str
    after_s: float
    hold_s: float

    def __str__(self) -> str:
        return f"+{self.after_s:.2f} s {self.kind} ({self.hold_s:.2f} s)"


def draw(seed: int, num_faults: int) -> list[Fault]:
    """The plan of a seed."""
    random_ = random.Random(seed)
    plan: list[Fault] = []
    while len(plan) < num_faults:
        (kind,) = random_.choices([*WEIGHTS], [*WEIGHTS.values()])
        fault = Fault(kind, random_.uniform(0.2, 2.5), random_.uniform(0.1, 1.2))
        if sum(earlier.kind == kind for earlier in plan) < AT_MOST.get(kind, num_faults):
            plan.append(fault)
    return plan


class Injector:
    """Carries a plan out. `happened` counts the faults that met somebody."""

    def __init__(self, server: ServerProcess, actors: Sequence[Actor], seed: int) -> None:
        self.happened: Counter[str] = Counter()
        self._server = server
        self._actors = actors
        self._random = random.Random(seed + 1)

    def run(self, plan: Sequence[Fault]) -> None:
        """Inject all faults, one after the other. Processes that were killed and are needed are started again."""
        for fault in plan:
            time.sleep(fault.after_s)
            verb, _, victim = fault.kind.partition("_")
            if victim == "server":
                self._server_fault(verb, fault)
            elif victim in ("trainer", "embedder"):
                self._worker_fault(verb, victim, fault)
            else:
                self._kill_actor(victim, fault)

    def _server_fault(self, verb: str, fault: Fault) -> None:
        self.happened[fault.kind] += 1
        if verb == "stop":
            assert self._server.process is not None
            self._hold([self._server.process.pid], fault.hold_s)
            return
        self._server.kill()
        time.sleep(fault.hold_s)
        self._server.start()

    def _worker_fault(self, verb: str, kind: str, fault: Fault) -> None:
        pids = self._server.workers(kind)
        if not pids:
            return
        self.happened[fault.kind] += 1
        if verb == "stop":
            self._hold(pids, fault.hold_s)
            return
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _kill_actor(self, role: str, fault: Fault) -> None:
        alive = [actor for actor in self._actors if actor.role == role and actor.alive]
        if not alive:
            return
        victim = self._random.choice(alive)
        if victim.kill():
            self.happened[fault.kind] += 1
        time.sleep(fault.hold_s)
        victim.start()

    def _hold(self, pids: Sequence[int], seconds: float) -> None:
        """Send SIGSTOP, and SIGCONT afterwards whatever happens in between."""
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            if number == signal.SIGSTOP:
                time.sleep(seconds)
