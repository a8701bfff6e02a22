"""The linear probe of a job: a classifier that learns along with the network, without any influence on it."""

from __future__ import annotations

from manyview_server.learn.evaluation import linear_probe
from manyview_server.learn.evaluation.linear_probe import LinearProbe
from manyview_server.learn.methods import Method
from manyview_server.learn.settings import TrainSettings


def probe_for(
    method: Method, settings: TrainSettings, *, num_classes: int, num_held_out: int, existing: LinearProbe | None = None
) -> LinearProbe | None:
    """Return the probe for images with `num_classes` classes: `existing`, if there is one, with room for all of them.

    There is none for more than MAX_CLASSES classes, without labelled images that are held out, or if it is off.
    """
    if num_classes > linear_probe.MAX_CLASSES:
        return None
    if not num_held_out or not settings.evaluation.linear_probe:
        return existing
    if existing is None:
        rate = settings.evaluation.linear_learning_rate
        device = next(method.parameters()).device
        return LinearProbe(method.encoder.feature_dim, num_classes, rate).to(device)
    existing.grow(num_classes)
    return existing
