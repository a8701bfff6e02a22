"""The calls of the contract, one typed method each. No other module of the SDK names an RPC."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from manyview._transport.channel import Channel
from manyview._transport.stream import Stream
from manyview.v1 import dataset_service_pb2 as datasets
from manyview.v1 import embed_service_pb2 as embeds
from manyview.v1 import metrics_service_pb2 as metrics
from manyview.v1 import model_service_pb2 as models
from manyview.v1 import train_job_service_pb2 as jobs

R = TypeVar("R", bound=Message)

_PACKAGE = "/manyview.v1."


class Rpcs:
    """Every RPC of `manyview.v1`, from message to message. The errors are those of `_errors`."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    def create_dataset(self, request: datasets.CreateDatasetRequest) -> datasets.CreateDatasetResponse:
        return self._mutate("DatasetService/CreateDataset", request, datasets.CreateDatasetResponse)

    def get_dataset(self, request: datasets.GetDatasetRequest) -> datasets.GetDatasetResponse:
        return self._read("DatasetService/GetDataset", request, datasets.GetDatasetResponse)

    def list_datasets(self, request: datasets.ListDatasetsRequest) -> datasets.ListDatasetsResponse:
        return self._read("DatasetService/ListDatasets", request, datasets.ListDatasetsResponse)

    def delete_dataset(self, request: datasets.DeleteDatasetRequest) -> datasets.DeleteDatasetResponse:
        return self._mutate("DatasetService/DeleteDataset", request, datasets.DeleteDatasetResponse)

    def upload_images(
        self, *, on_message: Callable[[], None] = lambda: None
    ) -> Stream[datasets.UploadImagesRequest | bytes, datasets.UploadImagesResponse]:
        return self.channel.bidi_stream(
            f"{_PACKAGE}DatasetService/UploadImages", datasets.UploadImagesResponse, on_message=on_message
        )

    def get_upload(self, request: datasets.GetUploadRequest) -> datasets.GetUploadResponse:
        return self._read("DatasetService/GetUpload", request, datasets.GetUploadResponse)

    def list_images(self, request: datasets.ListImagesRequest) -> datasets.ListImagesResponse:
        return self._read("DatasetService/ListImages", request, datasets.ListImagesResponse)

    def get_image(self, request: datasets.GetImageRequest) -> datasets.GetImageResponse:
        return self._read("DatasetService/GetImage", request, datasets.GetImageResponse)

    def create_train_job(self, request: jobs.CreateTrainJobRequest) -> jobs.CreateTrainJobResponse:
        return self._mutate("TrainJobService/CreateTrainJob", request, jobs.CreateTrainJobResponse)

    def get_train_job(
        self, request: jobs.GetTrainJobRequest, *, timeout_s: float | None = None
    ) -> jobs.GetTrainJobResponse:
        """Ask for a job, within `timeout_s` if that is shorter than the deadline of every call."""
        return self._read("TrainJobService/GetTrainJob", request, jobs.GetTrainJobResponse, timeout_s)

    def list_train_jobs(self, request: jobs.ListTrainJobsRequest) -> jobs.ListTrainJobsResponse:
        return self._read("TrainJobService/ListTrainJobs", request, jobs.ListTrainJobsResponse)

    def delete_train_job(self, request: jobs.DeleteTrainJobRequest) -> jobs.DeleteTrainJobResponse:
        return self._mutate("TrainJobService/DeleteTrainJob", request, jobs.DeleteTrainJobResponse)

    def pause_train_job(self, request: jobs.PauseTrainJobRequest) -> jobs.PauseTrainJobResponse:
        return self._mutate("TrainJobService/PauseTrainJob", request, jobs.PauseTrainJobResponse)

    def resume_train_job(self, request: jobs.ResumeTrainJobRequest) -> jobs.ResumeTrainJobResponse:
        return self._mutate("TrainJobService/ResumeTrainJob", request, jobs.ResumeTrainJobResponse)

    def cancel_train_job(self, request: jobs.CancelTrainJobRequest) -> jobs.CancelTrainJobResponse:
        return self._mutate("TrainJobService/CancelTrainJob", request, jobs.CancelTrainJobResponse)

    def list_methods(self, request: jobs.ListMethodsRequest) -> jobs.ListMethodsResponse:
        return self._read("TrainJobService/ListMethods", request, jobs.ListMethodsResponse)

    def preview_views(self, request: jobs.PreviewViewsRequest) -> jobs.PreviewViewsResponse:
        timeout_s = self.channel.deadlines.embed_s
        method = f"{_PACKAGE}TrainJobService/PreviewViews"
        return self.channel.unary(method, request, jobs.PreviewViewsResponse, timeout_s=timeout_s)

    def tail_logs(self, request: jobs.TailLogsRequest) -> Stream[jobs.TailLogsRequest, jobs.TailLogsResponse]:
        return self.channel.server_stream(f"{_PACKAGE}TrainJobService/TailLogs", request, jobs.TailLogsResponse)

    def embed(self, request: embeds.EmbedRequest) -> embeds.EmbedResponse:
        timeout_s = self.channel.deadlines.embed_s
        return self.channel.unary(f"{_PACKAGE}EmbedService/Embed", request, embeds.EmbedResponse, timeout_s=timeout_s)

    def embed_stream(self) -> Stream[embeds.EmbedStreamRequest, embeds.EmbedStreamResponse]:
        method = f"{_PACKAGE}EmbedService/EmbedStream"
        idle_s = self.channel.deadlines.embed_s
        return self.channel.bidi_stream(method, embeds.EmbedStreamResponse, idle_s=idle_s)

    def embed_dataset(
        self, request: embeds.EmbedDatasetRequest
    ) -> Stream[embeds.EmbedDatasetRequest, embeds.EmbedDatasetResponse]:
        return self.channel.server_stream(f"{_PACKAGE}EmbedService/EmbedDataset", request, embeds.EmbedDatasetResponse)

    def select_samples(
        self, request: embeds.SelectSamplesRequest
    ) -> Stream[embeds.SelectSamplesRequest, embeds.SelectSamplesResponse]:
        method = f"{_PACKAGE}EmbedService/SelectSamples"
        return self.channel.server_stream(method, request, embeds.SelectSamplesResponse)

    def find_neighbors(
        self, request: embeds.FindNeighborsRequest
    ) -> Stream[embeds.FindNeighborsRequest, embeds.FindNeighborsResponse]:
        method = f"{_PACKAGE}EmbedService/FindNeighbors"
        return self.channel.server_stream(method, request, embeds.FindNeighborsResponse)

    def find_duplicates(
        self, request: embeds.FindDuplicatesRequest
    ) -> Stream[embeds.FindDuplicatesRequest, embeds.FindDuplicatesResponse]:
        method = f"{_PACKAGE}EmbedService/FindDuplicates"
        return self.channel.server_stream(method, request, embeds.FindDuplicatesResponse)

    def subscribe_metrics(
        self, request: metrics.SubscribeMetricsRequest
    ) -> Stream[metrics.SubscribeMetricsRequest, metrics.SubscribeMetricsResponse]:
        method = f"{_PACKAGE}MetricsService/SubscribeMetrics"
        return self.channel.server_stream(method, request, metrics.SubscribeMetricsResponse)

    def query_metrics(self, request: metrics.QueryMetricsRequest) -> metrics.QueryMetricsResponse:
        return self._read("MetricsService/QueryMetrics", request, metrics.QueryMetricsResponse)

    def list_models(self, request: models.ListModelsRequest) -> models.ListModelsResponse:
        return self._read("ModelService/ListModels", request, models.ListModelsResponse)

    def get_model(self, request: models.GetModelRequest) -> models.GetModelResponse:
        return self._read("ModelService/GetModel", request, models.GetModelResponse)

    def export_model(
        self, request: models.ExportModelRequest
    ) -> Stream[models.ExportModelRequest, models.ExportModelResponse]:
        return self.channel.server_stream(f"{_PACKAGE}ModelService/ExportModel", request, models.ExportModelResponse)

    def get_server_info(self, request: models.GetServerInfoRequest) -> models.GetServerInfoResponse:
        return self._read("ModelService/GetServerInfo", request, models.GetServerInfoResponse)

    def _read(self, method: str, request: Message, reply: type[R], timeout_s: float | None = None) -> R:
        unary_s = self.channel.deadlines.unary_s
        return self.channel.unary(
            _PACKAGE + method, request, reply, timeout_s=unary_s if timeout_s is None else min(timeout_s, unary_s)
        )

    def _mutate(self, method: str, request: Any, reply: type[R]) -> R:
        """Make a call that changes something. Its `request_id` is the same in all attempts, so the change happens
        once."""
        request.request_id = request.request_id or str(uuid.uuid4())
        return self.channel.unary(_PACKAGE + method, request, reply)
