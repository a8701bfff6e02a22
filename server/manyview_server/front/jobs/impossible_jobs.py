"""Refuse jobs that could only fail at their start: too few images, or nothing left to do.

The trainer checks both again, because only it knows which images can be read and are held out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manyview_server.errors import FailedPrecondition
from manyview_server.front.rpc import resource_names as names
from manyview_server.store.records import Checkpoint, Dataset, Job

MIN_IMAGES = 2
"""The least `batch_size`."""


def refuse_too_few(dataset: Dataset, settings: Mapping[str, Any]) -> None:
    """Check a job over the images that a data set holds now.

    Raises:
        FailedPrecondition: DATASET_TOO_SMALL.
        InvalidArgument: `batch_size` is larger than the data set.
    """
    num_readable = dataset.num_images - dataset.num_unreadable
    if num_readable < MIN_IMAGES:
        message = f"the data set {dataset.dataset_id!r} has {_images(num_readable)}, and training needs at least "
        hint = f"{MIN_IMAGES}: upload more, or create a job that follows the data set and starts once it has enough"
        raise FailedPrecondition("DATASET_TOO_SMALL", message + hint)
    batch_size = settings["batch_size"]
    if batch_size is not None and batch_size > num_readable:
        text = f"must be at most {num_readable}, the images of the data set {dataset.dataset_id!r} (got {batch_size})"
        raise names.invalid("config.batch_size", text)


def refuse_finished(
    source: Checkpoint, origin: Job, dataset: Dataset, settings: Mapping[str, Any], *, follows: bool
) -> None:
    """Raise InvalidArgument if a job that continues from `source`, a checkpoint of `origin`, has no step left.

    The epochs of the checkpoint count for the new job only if both have the same steps in an epoch: the same images,
    in batches of the same size.
    """
    max_steps = settings["max_steps"]
    if max_steps is not None and max_steps <= source.step:
        text = f"must be above {source.step}, the step of the checkpoint to continue from (got {max_steps})"
        raise names.invalid("config.max_steps", text)
    if follows or origin.min_images or not _same_epochs(origin, dataset, settings):
        return
    if settings["epochs"] <= source.epoch:
        text = f"must be above {source.epoch}, the epochs that the checkpoint to continue from has already made"
        raise names.invalid("config.epochs", f"{text} (got {settings['epochs']})")


def _same_epochs(origin: Job, dataset: Dataset, settings: Mapping[str, Any]) -> bool:
    same_images = (origin.dataset_uid, origin.num_images) == (dataset.uid, dataset.num_images)
    return same_images and all(origin.settings.get(name) == settings[name] for name in ("batch_size", "evaluation"))


def _images(count: int) -> str:
    return {0: "no image that can be read", 1: "one image that can be read"}[count]
