"""The measurements of step timers, in a file beside the data: a configuration is measured once on a device."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

log = logging.getLogger(__name__)


class StepTimes:
    """The measurements of one device with one set of versions, in memory and in a file."""

    def __init__(self, path: Path, versions: Mapping[str, str]) -> None:
        """`versions`: everything beside the request on which the times depend. A file of other versions is ignored."""
        self._path = path
        self._versions = dict(versions)
        self._times: dict[str, StepTimed] | None = None

    def find(self, request: TimeStep) -> StepTimed | None:
        """Return the times of an earlier request for the same step, or None."""
        return self._read().get(key(request))

    def keep(self, request: TimeStep, timed: StepTimed) -> None:
        """Keep the times of a request. If the file cannot be written, they are kept until the server stops."""
        times = self._read()
        times.pop(key(request), None)
        times[key(request)] = timed
        for oldest in list(times)[:-MAX_TIMES]:
            del times[oldest]
        rows = {name: [getattr(timed, field) for field in FIELDS] for name, timed in times.items()}
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
    """Return a digest of everything in a request on which the times depend.

    Data sets of similar size share a measurement: batches and banks that are chosen by the number of images grow with
    its power of two.
    """
    depends: dict[str, Any] = dataclasses.asdict(request)
    depends["settings"] = {name: value for name, value in request.settings.items() if name not in UNTIMED}
    depends["num_images"] = request.num_images.bit_length()
    del depends["limit_s"], depends["blobs"]
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
