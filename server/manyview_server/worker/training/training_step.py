"""One step of a job: from the images of a batch to an updated method.

Shapes: V views, B batch, o pixels on a side of a view, D feature.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manyview_server import failpoints
from manyview_server.learn.evaluation.linear_probe import LinearProbe
from manyview_server.learn.methods import Views, name_plugin_in_errors
from manyview_server.learn.schedules import cosine
from manyview_server.learn.step import StepResult, train_step
from manyview_server.learn.views import make_views
from manyview_server.worker.training.feed import Batch
from manyview_server.worker.training.prepared_job import PreparedJob


def take_step(job: PreparedJob, batch: Batch, step: int) -> StepResult:
    """Make the step after `step` steps: views of the batch, an update of the method, and one of the probe.

    Never waits for the device. Raises PluginBroken if a plugin's transform or method fails.
    """
    action = failpoints.reach("trainer.step", step + 1)
    views = _views(job, batch)
    if action == "nan":
        views = [view * torch.nan for view in views]
    with name_plugin_in_errors(job.settings.method):
        result = train_step(
            job.method,
            job.optimizer,
            views,
            batch.image_ids.to(views[0].device, non_blocking=True),
            job.moment(step),
            precision=job.numerics.precision,
        )
    if job.probe is not None:
        _teach(job.probe, result, batch.labels, cosine(step, job.num_steps, 1.0, 0.0))
    return result


def _views(job: PreparedJob, batch: Batch) -> Views:
    """Return the views of a batch, (V, B, 3, o, o) for each size of the recipe."""
    return make_views(
        batch.images,
        batch.sizes,
        batch.image_ids,
        job.settings.views,
        image_size=job.settings.image_size,
        seed=job.settings.seed,
        epoch=batch.epoch,
        dtype=job.numerics.dtype,
        memory_format=job.numerics.memory_format,
    )


def _teach(probe: LinearProbe, result: StepResult, labels: Tensor, factor: float) -> None:
    """Train the probe on the features of all views that the step made anyway, with labels (B,), -1 for none."""
    features = result.representation  # (VB, D)
    labels = labels.to(features.device, non_blocking=True).repeat(len(features) // len(labels))  # (VB,)
    probe.learn(features, labels, result.accepted, factor)
