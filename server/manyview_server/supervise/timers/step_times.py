"""The measurements of step timers, in a file beside the data: a configuration is measured once on a device.

A trainer that starts right after a measurement is told which number format was the fastest, and need not find it again.
A later one tries the formats itself, because the fastest depends on what else the machine does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from manyview_server.messages.message import Json
from manyview_server.messages.timing import StepTimed, TimeStep

MAX_TIMES = 256
"""The most measurements that are kept. The oldest are dropped."""
UNTIMED = frozenset(
    {
        "epochs",
        "max_steps",
        "seed",
        "log_every_steps",
        "on_collapse",
        "checkpoint_every_epochs",
        "checkpoint_every_steps",
        "checkpoint_every_minutes",
        "backbone_weights",
        "evaluation",
    }
)
"""Settings that do not change how long a step takes."""
FIELDS = ("batch_size", "step_s", "embed_s", "decode_s")
TIMER_VERSION = "2"
"""The way in which steps are measured. The first one also kept measurements beside other work."""
DISTURBED_S = 60.0
"""A measurement beside other work counts for this time, so that a job has the estimate of its plan. It is not kept in
the file, because later jobs would be planned by it after the other work has ended."""
FRESH_S = 10.0
"""The fastest number format is known for this time."""

log = logging.getLogger(__name__)


class StepTimes:
    """The measurements of one device with one set of versions, in memory and in a file."""

    def __init__(self, path: Path, versions: Mapping[str, str]) -> None:
        """`versions`: everything beside the request on which the times depend. A file of other versions is ignored."""
        self._path = path
        self._versions = {**versions, "timer": TIMER_VERSION}
        self._times: dict[str, StepTimed] | None = None
        self._disturbed: dict[str, float] = {}
        """Until when the measurements count that other work disturbed."""
        self._newest: tuple[str, float, dict[str, Json]] = ("", 0.0, {})
        """The job, the moment and the fastest number format of the newest measurement."""

    def find(self, request: TimeStep) -> StepTimed | None:
        """Return the times of an earlier request for the same step, or None."""
        times, name = self._read(), key(request)
        if self._disturbed.get(name, math.inf) < time.monotonic():
            times.pop(name, None)
            del self._disturbed[name]
        return times.get(name)

    def numerics(self, settings: Mapping[str, Json], device: str, num_threads: int) -> dict[str, Json]:
        """Return the number format in which a step of a job was the fastest, or {} if that was not just measured."""
        step, measured_s, numerics = self._newest
        is_known = step == _step_key(settings, device, num_threads) and time.monotonic() - measured_s < FRESH_S
        return numerics if is_known else {}

    def image_s(self, settings: Mapping[str, Json], device: str, num_threads: int) -> float:
        """Return the seconds for each image in the newest measured step of a job, or 0 if none was measured."""
        step = _step_key(settings, device, num_threads)
        newest = [timed for name, timed in self._read().items() if name.startswith(step)][-1:]
        return sum(timed.step_s / timed.batch_size for timed in newest)

    def keep(self, request: TimeStep, timed: StepTimed) -> None:
        """Keep the times of a request. If the file cannot be written, they are kept until the server stops."""
        times = self._read()
        times.pop(key(request), None)
        times[key(request)] = replace(timed, numerics={})
        self._disturbed.pop(key(request), None)
        if timed.is_disturbed:
            self._disturbed[key(request)] = time.monotonic() + DISTURBED_S
        step = _step_key(request.settings, request.device, request.num_threads)
        self._newest = step, time.monotonic(), timed.numerics
        for oldest in list(times)[:-MAX_TIMES]:
            del times[oldest]
        rows = {
            name: [getattr(timed, field) for field in FIELDS] for name, timed in times.items() if not timed.is_disturbed
        }
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps({"versions": self._versions, "times": rows}))
            temporary.replace(self._path)
        except OSError as error:
            log.warning("cannot keep the measured times of steps: %s", error)

    def _read(self) -> dict[str, StepTimed]:
        if self._times is None:
            self._times = self._parse()
        return self._times

    def _parse(self) -> dict[str, StepTimed]:
        try:
            kept = json.loads(self._path.read_text())
            if kept["versions"] != self._versions:
                return {}
            return {name: StepTimed(**dict(zip(FIELDS, row, strict=True))) for name, row in kept["times"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}


def key(request: TimeStep) -> str:
    """Return a name for everything in a request on which the times depend.

    Data sets of similar size share a measurement: batches and banks that are chosen by the number of images grow with
    its power of two.
    """
    step = _step_key(request.settings, request.device, request.num_threads)
    return f"{step}-{request.num_images.bit_length()}-{request.decode_size}"


def _step_key(settings: Mapping[str, Json], device: str, num_threads: int) -> str:
    timed = {name: value for name, value in settings.items() if name not in UNTIMED}
    return hashlib.sha256(json.dumps([timed, device, num_threads], sort_keys=True).encode()).hexdigest()
