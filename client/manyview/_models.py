"""Naming and listing what the server holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from manyview import _convert
from manyview._rpcs import Rpcs
from manyview._types import Dataset, Model
from manyview.v1 import dataset_service_pb2, model_service_pb2

if TYPE_CHECKING:
    from manyview._jobs import Job


def dataset_name(dataset: Dataset | str) -> str:
    """ "datasets/{id}" for a data set, its name or its id."""
    name = dataset.name if isinstance(dataset, Dataset) else dataset
    return name if name.startswith("datasets/") else f"datasets/{name}"


def image_ref(image: Any) -> dataset_service_pb2.ImageRef:
    """An image of a data set by its key, or by the id of what has one: a listed or selected image, a neighbour."""
    if isinstance(image, str):
        return dataset_service_pb2.ImageRef(key=image)
    image_id = getattr(image, "image_id", None)
    if not isinstance(image_id, str):
        raise TypeError(f"an image is named by its key or by a StoredImage, not by {type(image).__name__}")
    return dataset_service_pb2.ImageRef(image_id=image_id)


def job_name(job: Job | str) -> str:
    """ "trainJobs/{id}" for a job, its name or its id."""
    name = job if isinstance(job, str) else job.name
    return name if name.startswith("trainJobs/") else f"trainJobs/{name}"


def model_name(model: Job | Model | str) -> str:
    """The name of a job, a checkpoint or a plain backbone; a bare id is a job's."""
    name = model if isinstance(model, str) else model.name
    return name if "/" in name else f"trainJobs/{name}"


def list_models(rpcs: Rpcs, job: str = "") -> Iterator[Model]:
    """The checkpoints of a job, or of all jobs and then the plain backbones; page by page."""
    token = ""
    while True:
        request = model_service_pb2.ListModelsRequest(train_job=job, page_size=1000, page_token=token)
        reply = rpcs.list_models(request)
        yield from map(_convert.model, reply.models)
        token = reply.next_page_token
        if not token:
            return
