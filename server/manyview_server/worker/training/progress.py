"""The progress of a trainer, and the heartbeat that reports it."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import Literal

from manyview_server.messages.training import Heartbeat
from manyview_server.worker.channel import Channel

HEARTBEAT_S = 2.0

Stage = Literal["starting", "decoding", "building", "training", "evaluating"]


@dataclass
class Progress:
    """The progress of a trainer. Its main thread writes, and the heartbeat's thread reads."""

    stage: Stage = "starting"
    step: int = 0
    num_steps: int = 0
    epoch: int = 0
    num_epochs: int = 0
    eta_s: float = 0.0
    """The seconds until the job ends, at the rate of this attempt so far."""
    done: int = 0
    """A count that rises while the stage makes progress."""
    _started_s: float = field(default=0.0, init=False, repr=False)
    _started_at_step: int = field(default=0, init=False, repr=False)

    def start_steps(self) -> None:
        """Enter the stage "training", and measure the rate from here on."""
        self.stage = "training"
        self._started_s, self._started_at_step = time.perf_counter(), self.step

    def step_done(self, epoch: int) -> None:
        """Count a step; `epoch` is the number of epochs that are complete now."""
        self.step += 1
        self.epoch = epoch
        seconds_per_step = (time.perf_counter() - self._started_s) / (self.step - self._started_at_step)
        self.eta_s = seconds_per_step * (self.num_steps - self.step)

    def heartbeat(self) -> Heartbeat:
        """Return the message that reports this progress."""
        return Heartbeat(
            stage=self.stage,
            step=self.step,
            num_steps=self.num_steps,
            epoch=self.epoch,
            num_epochs=self.num_epochs,
            eta_s=self.eta_s,
            done=self.done,
            rss_bytes=rss_bytes(),
        )


def start_heartbeat(channel: Channel, progress: Progress) -> None:
    """Report every 2 seconds, from a thread, that the process lives and how far it is."""

    def beat() -> None:
        while True:
            channel.send(progress.heartbeat())
            time.sleep(HEARTBEAT_S)

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()


def rss_bytes() -> int:
    """Return the resident memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
