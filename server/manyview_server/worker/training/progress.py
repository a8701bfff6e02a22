"""The progress of a trainer, and the heartbeat that reports it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from manyview_server.messages.training import Heartbeat
from manyview_server.worker.channel import WorkerChannel

HEARTBEAT_S = 1.0
RATE_HALF_LIFE_S = 60.0
SHOWN_WAIT_S = 1.0
"""A step that waits so long for its images is shown as the stage "decoding"."""

Stage = Literal["starting", "decoding", "building", "measuring the baseline", "training", "evaluating"]


@dataclass
class TrainerProgress:
    """The progress of a trainer. Its main thread writes, and the heartbeat's thread reads."""

    stage: Stage = "starting"
    step: int = 0
    num_steps: int = 0
    epoch: int = 0
    num_epochs: int = 0
    eta_s: float = 0.0
    """The seconds until the job ends, at the rate of this attempt. A step counts half as much after another minute, so
    that other work on the machine is seen soon."""
    done: int = 0
    """A count that rises while the stage makes progress."""
    images_done: int = 0
    """The images that the stage has done. Only stages that know `images_total` count them."""
    images_total: int = 0
    _last_s: float = field(default=0.0, init=False, repr=False)
    _weighted_steps: float = field(default=0.0, init=False, repr=False)
    _weighted_s: float = field(default=0.0, init=False, repr=False)
    _waiting_since_s: float | None = field(default=None, init=False, repr=False)
    _awaited: tuple[int, int] = field(default=(0, 0), init=False, repr=False)

    def start(self, stage: Stage, images_total: int = 0) -> None:
        """Enter a stage. `images_total` is the number of images that it handles, or 0 if it counts none."""
        self.images_done, self.images_total, self.stage = 0, images_total, stage

    def images(self, count: int) -> None:
        """Count images that the stage has done. A resumed job measures raw pixels once more, which is not announced."""
        self.images_done = min(self.images_total, self.images_done + count)

    def start_steps(self) -> None:
        """Enter the stage "training", and measure the rate from here on."""
        self.start("training")
        self._last_s, self._weighted_steps, self._weighted_s = time.perf_counter(), 0.0, 0.0

    def step_done(self, epoch: int) -> None:
        """Count a step; `epoch` is the number of epochs that are complete now."""
        self.step += 1
        self.epoch = epoch
        now_s = time.perf_counter()
        took_s, self._last_s = now_s - self._last_s, now_s
        kept = 0.5 ** (took_s / RATE_HALF_LIFE_S)
        self._weighted_steps, self._weighted_s = kept * self._weighted_steps + 1, kept * self._weighted_s + took_s
        self.eta_s = self._weighted_s / self._weighted_steps * (self.num_steps - self.step)

    @contextmanager
    def waiting_for_images(self) -> Iterator[None]:
        """Let the block be a wait for the images of a step: a long one is reported as the stage "decoding"."""
        self._awaited, self._waiting_since_s = (0, 0), time.perf_counter()
        try:
            yield
        finally:
            self._waiting_since_s = None

    def awaited(self, done: int, total: int) -> None:
        """Note how many images of the next batch are decoded, and how many must be. Any thread may call it."""
        if self._waiting_since_s is not None and (done, total) != self._awaited:
            self._awaited = done, total
            self.done += 1

    def heartbeat(self) -> Heartbeat:
        """Return the message that reports this progress."""
        stage, images_done, images_total = self._shown()
        return Heartbeat(
            stage=stage,
            step=self.step,
            num_steps=self.num_steps,
            epoch=self.epoch,
            num_epochs=self.num_epochs,
            eta_s=self.eta_s,
            done=self.done,
            images_done=images_done,
            images_total=images_total,
            rss_bytes=rss_bytes(),
        )

    def _shown(self) -> tuple[Stage, int, int]:
        """Return the stage, and the images that it has done, of how many."""
        since_s = self._waiting_since_s  # the main thread may change it
        if since_s is not None and time.perf_counter() - since_s >= SHOWN_WAIT_S and self._awaited[1]:
            return "decoding", *self._awaited
        return self.stage, self.images_done, self.images_total


def start_heartbeat(channel: WorkerChannel, progress: TrainerProgress) -> None:
    """Report every second, from a thread, that the process lives and how far it is."""

    def beat() -> None:
        while True:
            channel.send(progress.heartbeat())
            time.sleep(HEARTBEAT_S)

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()


def rss_bytes() -> int:
    """Return the resident memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
