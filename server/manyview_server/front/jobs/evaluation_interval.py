"""Choose how often a job measures kNN, where its number of epochs is chosen, too.

An evaluation embeds all labelled images, up to a bound. After each epoch it would take about a sixth of the time
wherever few images make short epochs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from manyview_server.messages.timing import StepTimed
from manyview_server.supervise.timers.job_seconds import Workload, epoch_seconds, evaluation_seconds

NAME = "evaluation.knn_every_epochs"
MAX_SHARE = 0.05
"""The share of a job's time that evaluations may take if there are more than `MIN_EVALUATIONS`."""
MIN_EVALUATIONS = 10


def wanted(workload: Workload, settings: Mapping[str, Any], timed: StepTimed) -> int:
    """Return the least number of epochs between evaluations with which these take no more than their share."""
    if not workload.num_held_out(settings):
        return 1
    steps_s, evaluation_s = epoch_seconds(workload, settings, timed), evaluation_seconds(workload, settings, timed)
    return max(1, math.ceil((1 - MAX_SHARE) / MAX_SHARE * evaluation_s / steps_s))


def bounded(wanted: int, epochs: int) -> int:
    """Return fewer epochs if a job of `epochs` would otherwise have too few evaluations."""
    return max(1, min(wanted, epochs // MIN_EVALUATIONS))


def is_in(given: Mapping[str, Any]) -> bool:
    """Is the setting part of a configuration?"""
    return "knn_every_epochs" in given.get("evaluation", {})


def put_into(settings: Mapping[str, Any], every: int) -> dict[str, Any]:
    """Return a configuration with this setting."""
    return {**settings, "evaluation": {**settings.get("evaluation", {}), "knn_every_epochs": every}}
