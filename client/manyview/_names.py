"""Names of the resources of a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, Protocol

from manyview._types.datasets import Dataset
from manyview.v1 import dataset_service_pb2


class Named(Protocol):
    """A job or a model, as far as this module is concerned."""

    @property
    def name(self) -> str: ...


def dataset_name(dataset: Dataset | str) -> str:
    """Return "datasets/{id}" for a data set, its name or its id."""
    name = dataset.name if isinstance(dataset, Dataset) else dataset
    return name if name.startswith("datasets/") else f"datasets/{name}"


def short(name: str) -> str:
    """Return the id in the name of a resource, which is the part that people gave."""
    return name.partition("/")[2] or name


def image_ref(image: Any) -> dataset_service_pb2.ImageRef:
    """Return the reference to an image of a data set, which is a key, or a listed image, selected image or neighbor.
    Raises TypeError for anything else."""
    if isinstance(image, str):
        return dataset_service_pb2.ImageRef(key=image)
    if not _has_id(image):
        raise TypeError(f"an image must be a key or a StoredImage, not {type(image).__name__}")
    return dataset_service_pb2.ImageRef(image_id=image.image_id)


def are_stored(images: Any) -> tuple[bool, Any]:
    """Return whether these are images of a data set, as the SDK lists, selects or finds them. Also return the images
    themselves: the first item of an iterator is looked at and put back."""
    if isinstance(images, str | bytes):
        return False, images
    if _has_id(images):
        return True, [images]
    if isinstance(images, Iterator):
        first = list(islice(images, 1))
        return any(map(_has_id, first)), chain(first, images)
    return isinstance(images, Sequence) and len(images) > 0 and all(map(_has_id, images)), images


def _has_id(image: Any) -> bool:
    return isinstance(getattr(image, "image_id", None), str)


def job_name(job: Named | str) -> str:
    """Return "trainJobs/{id}" for a job, its name or its id."""
    name = job if isinstance(job, str) else job.name
    return name if name.startswith("trainJobs/") else f"trainJobs/{name}"


def model_name(model: Named | str) -> str:
    """Return the name of a job, a checkpoint or a plain backbone. A word without a slash is the id of a job."""
    name = model if isinstance(model, str) else model.name
    return name if "/" in name else f"trainJobs/{name}"
