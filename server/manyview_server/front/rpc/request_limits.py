"""The table of limits for each list, text and object of each request, by the field's name in the contract.

`wire_check` applies the table to the bytes of a request before they are parsed. The limits protect the server. They are
often higher than what a call accepts, so that the call itself can refuse one image or name and say why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from manyview_server.configuration import configuration_size


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldLimit:
    """The limits of one field. None means that the limit of the whole message is enough."""

    items: int | None = None
    """The most items of a list or map."""
    bytes: int | None = None
    """The most bytes of a value."""


MAX_CHOSEN = 100_000
"""The most images that a selection request can name as already chosen."""
MAX_QUERIES = 10_000
"""The most stored images that a call can name as its queries."""
MAX_LABELS = 25_000
"""The most labels for which a selection request can give a count."""

ID = FieldLimit(bytes=256)
NAME = FieldLimit(bytes=512)
PAGE_TOKEN = FieldLimit(bytes=4_096)
REQUEST_ID = FieldLimit(bytes=256)
KEY = FieldLimit(bytes=4_096)
DIGEST = FieldLimit(bytes=1_024)
IMAGES = FieldLimit(items=4_096)
QUERIES = FieldLimit(items=MAX_QUERIES)
CONFIGURATION = FieldLimit(bytes=configuration_size.MAX_BYTES)

_V1: Mapping[str, FieldLimit] = {
    # Data sets and uploads.
    "CreateDatasetRequest.dataset_id": ID,
    "CreateDatasetRequest.request_id": REQUEST_ID,
    "GetDatasetRequest.name": NAME,
    "ListDatasetsRequest.page_token": PAGE_TOKEN,
    "DeleteDatasetRequest.name": NAME,
    "DeleteDatasetRequest.request_id": REQUEST_ID,
    "UploadHeader.dataset": NAME,
    "UploadHeader.upload_id": ID,
    "UploadHeader.resume_digest": DIGEST,
    "GetUploadRequest.dataset": NAME,
    "GetUploadRequest.upload_id": ID,
    "ListImagesRequest.dataset": NAME,
    "ListImagesRequest.page_token": PAGE_TOKEN,
    "ListImagesRequest.statuses": FieldLimit(items=64),
    "GetImageRequest.dataset": NAME,
    "ImageRef.image_id": ID,
    "ImageRef.key": KEY,
    # An image that is too large is refused alone, so only the limit of the message bounds its bytes here.
    "Image.data": FieldLimit(),
    "Image.key": FieldLimit(bytes=64 << 10),
    "Image.label": FieldLimit(bytes=64 << 10),
    "Image.sha256": DIGEST,
    "ImageBatch.images": IMAGES,
    # Jobs.
    "CreateTrainJobRequest.train_job_id": ID,
    "CreateTrainJobRequest.dataset": NAME,
    "CreateTrainJobRequest.method": NAME,
    "CreateTrainJobRequest.config": CONFIGURATION,
    "CreateTrainJobRequest.request_id": REQUEST_ID,
    "CreateTrainJobRequest.clone_from": NAME,
    "CreateTrainJobRequest.continue_from": NAME,
    "GetTrainJobRequest.name": NAME,
    "ListTrainJobsRequest.page_token": PAGE_TOKEN,
    "DeleteTrainJobRequest.name": NAME,
    "DeleteTrainJobRequest.request_id": REQUEST_ID,
    "PauseTrainJobRequest.name": NAME,
    "PauseTrainJobRequest.request_id": REQUEST_ID,
    "ResumeTrainJobRequest.name": NAME,
    "ResumeTrainJobRequest.request_id": REQUEST_ID,
    "CancelTrainJobRequest.name": NAME,
    "CancelTrainJobRequest.request_id": REQUEST_ID,
    "PreviewViewsRequest.train_job": NAME,
    "PreviewViewsRequest.method": NAME,
    "PreviewViewsRequest.config": CONFIGURATION,
    "PreviewViewsRequest.dataset": NAME,
    "PreviewViewsRequest.images": FieldLimit(items=256),
    "TailLogsRequest.train_job": NAME,
    # Embeddings.
    "EmbedRequest.model": NAME,
    "EmbedRequest.images": IMAGES,
    "EmbedHeader.model": NAME,
    "EmbedDatasetRequest.dataset": NAME,
    "EmbedDatasetRequest.model": NAME,
    "EmbedDatasetRequest.page_token": PAGE_TOKEN,
    "SelectSamplesRequest.dataset": NAME,
    "SelectSamplesRequest.model": NAME,
    "SelectSamplesRequest.chosen": FieldLimit(items=MAX_CHOSEN),
    "SimilarityStrategy.images": IMAGES,
    "SimilarityStrategy.stored": QUERIES,
    "ClassBalance.counts": FieldLimit(items=MAX_LABELS),
    "ClassBalance.CountsEntry.key": KEY,
    "FindNeighborsRequest.dataset": NAME,
    "FindNeighborsRequest.model": NAME,
    "FindNeighborsRequest.images": IMAGES,
    "FindNeighborsRequest.stored": QUERIES,
    "FindDuplicatesRequest.dataset": NAME,
    "FindDuplicatesRequest.model": NAME,
    # Metrics.
    "SubscribeMetricsRequest.train_job": NAME,
    "SubscribeMetricsRequest.kinds": FieldLimit(items=64),
    "QueryMetricsRequest.train_job": NAME,
    "QueryMetricsRequest.metric_names": FieldLimit(items=1_000, bytes=512),
    "QueryMetricsRequest.page_token": PAGE_TOKEN,
    # Models.
    "ListModelsRequest.train_job": NAME,
    "ListModelsRequest.page_token": PAGE_TOKEN,
    "GetModelRequest.name": NAME,
    "ExportModelRequest.name": NAME,
}

FIELD_LIMITS: Mapping[str, FieldLimit] = {
    **{f"manyview.v1.{name}": limit for name, limit in _V1.items()},
    "google.protobuf.Struct.fields": FieldLimit(items=configuration_size.MAX_KEYS),
    "google.protobuf.Struct.FieldsEntry.key": FieldLimit(bytes=configuration_size.MAX_KEY_BYTES),
    "google.protobuf.ListValue.values": FieldLimit(items=configuration_size.MAX_ITEMS),
    "google.protobuf.Value.string_value": FieldLimit(bytes=configuration_size.MAX_TEXT_BYTES),
}
