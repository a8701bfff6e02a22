"""Check the resource names and ids of requests. An error names the field."""

from __future__ import annotations

import re
from dataclasses import dataclass

from manyview.v1 import dataset_service_pb2
from manyview_server.errors import InvalidArgument, Violation
from manyview_server.store.records import ImageRef

RESOURCE_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
UPLOAD_ID = re.compile(r"[A-Za-z0-9_-]{1,63}")
BACKBONE = re.compile(r"(?:(?:torchvision|timm)/)?[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
REQUEST_ID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
IMAGE_ID = re.compile(r"[0-9a-f]{16}")
STEP = re.compile(r"[0-9]{1,18}")

ID_RULE = "an id has 1 to 63 characters: a-z or 0-9 first, then a-z, 0-9, _ and -"
MODEL_RULE = (
    "the forms are trainJobs/{id}, trainJobs/{id}/checkpoints/{step}, backbones/{name}, backbones/torchvision/{name} "
    "and backbones/timm/{name}"
)


def invalid(field: str, description: str) -> InvalidArgument:
    """Return the error for one field: its value, and what is allowed."""
    return InvalidArgument.of(Violation(field=field, description=description))


def shown(text: str) -> str:
    """Quote a caller's text for an error, cut to 80 characters."""
    return repr(text if len(text) <= 80 else text[:79] + "…")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """The name of a job's checkpoint, or of a plain backbone."""

    train_job_id: str = ""
    step: int | None = None
    """None means the newest checkpoint of the job."""
    backbone: str = ""


def new_id(text: str, field: str) -> str:
    """Check an id that the caller chose for a new resource."""
    if not RESOURCE_ID.fullmatch(text):
        raise invalid(field, f"{shown(text)} is not a valid id; {ID_RULE}{_similar_id(text)}")
    return text


def dataset_id(name: str, field: str = "name") -> str:
    """Return the id in "datasets/{dataset_id}"."""
    return _id(name, "datasets", field)


def train_job_id(name: str, field: str = "name") -> str:
    """Return the id in "trainJobs/{train_job_id}"."""
    return _id(name, "trainJobs", field)


def upload_id(text: str, field: str) -> str:
    """Check the id of an upload."""
    if not UPLOAD_ID.fullmatch(text):
        rule = "it must have 1 to 63 characters of A-Z, a-z, 0-9, _ and -"
        raise invalid(field, f"{shown(text)} is not a valid upload id; {rule}")
    return text


def image_ref(ref: dataset_service_pb2.ImageRef, field: str) -> ImageRef:
    """Read a reference to a stored image, which has an id or a key."""
    kind = ref.WhichOneof("image")
    if kind == "image_id":
        if not IMAGE_ID.fullmatch(ref.image_id) or not 0 < int(ref.image_id, 16) < 2**63:
            rule = "an id has 16 digits of 0-9 and a-f, and the first is at most 7"
            raise invalid(f"{field}.image_id", f"{shown(ref.image_id)} is not an image id; {rule}")
        return ImageRef(image_id=int(ref.image_id, 16))
    if kind is None or not ref.key:
        raise invalid(field, "names no image; set image_id or key")
    return ImageRef(key=ref.key)


def request_id(text: str) -> str:
    """Return a UUID in lower case, or "" if none is given."""
    if text and not REQUEST_ID.fullmatch(text):
        raise invalid("request_id", f"{shown(text)} is not a UUID")
    return text.lower()


def model_name(name: str, field: str) -> ModelName:
    """Read the name of a model, which has one of three forms."""
    parts = name.split("/")
    if parts[0] == "trainJobs" and len(parts) in (2, 4) and RESOURCE_ID.fullmatch(parts[1]):
        if len(parts) == 2:
            return ModelName(train_job_id=parts[1])
        if parts[2] == "checkpoints" and STEP.fullmatch(parts[3]):
            return ModelName(train_job_id=parts[1], step=int(parts[3]))
    collection, _, rest = name.partition("/")
    if collection == "backbones" and BACKBONE.fullmatch(rest):
        return ModelName(backbone=rest)
    if not name:
        raise invalid(field, f"names no model; {MODEL_RULE}")
    raise invalid(field, f"{shown(name)} is not a model name; {MODEL_RULE}")


def _similar_id(text: str) -> str:
    """Return a suggestion for an id that breaks the rule, or "" if nothing of it is left."""
    suggested = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63]
    return f"; for example {suggested!r}" if suggested else ""


def _id(name: str, collection: str, field: str) -> str:
    prefix, _, rest = name.partition("/")
    if prefix != collection:
        raise invalid(field, f"{shown(name)} is not of the form {collection}/{{id}}; {ID_RULE}")
    return new_id(rest, field)
