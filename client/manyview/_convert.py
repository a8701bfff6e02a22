"""Generated messages as the SDK's own values. No generated message leaves the SDK."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from google.protobuf import json_format, struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from manyview._progress.activity import Activity, ActivityKind
from manyview._types.datasets import Dataset
from manyview._types.images import ImageError, StoredImage
from manyview._types.jobs import Estimate, Failure, LogLine, Progress, TrainJobInfo
from manyview._types.models import Backbone, Method, Methods, Model, PluginProblem, Preprocessing
from manyview._types.server import Device, EmbedTiming, Limits, ServerInfo
from manyview._types.uploads import UploadReport
from manyview._types.words import Crop, ImageStatus, Interpolation, JobState, LogLevel, WeightsOrigin
from manyview.v1 import dataset_service_pb2, embed_service_pb2, model_service_pb2, train_job_service_pb2, types_pb2

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def time(value: Timestamp) -> datetime | None:
    """Return a moment in UTC, or None if the message has none."""
    return value.ToDatetime(tzinfo=UTC) if value.seconds or value.nanos else None


def state(value: types_pb2.TrainJobState) -> JobState:
    return cast(JobState, types_pb2.TrainJobState.Name(value).removeprefix("TRAIN_JOB_STATE_"))


def image_error(value: types_pb2.ImageError) -> ImageError:
    return ImageError(reason=value.reason, message=value.message)


def dataset(value: dataset_service_pb2.Dataset, upload: UploadReport | None = None) -> Dataset:
    return Dataset(
        name=value.name,
        uid=value.uid,
        create_time=time(value.create_time),
        num_images=value.num_images,
        num_bytes=value.num_bytes,
        num_labels=value.num_labels,
        num_labelled=value.num_labelled,
        num_rejected=value.num_rejected,
        num_unreadable=value.num_unreadable,
        upload=upload,
    )


def stored_image(value: dataset_service_pb2.StoredImage) -> StoredImage:
    status = dataset_service_pb2.StoredImage.Status.Name(value.status).removeprefix("STATUS_")
    return StoredImage(
        image_id=value.image_id,
        key=value.key,
        label=value.label,
        status=cast(ImageStatus, status),
        error=image_error(value.error) if value.HasField("error") else None,
        num_bytes=value.num_bytes,
        width=value.width,
        height=value.height,
    )


def train_job(value: train_job_service_pb2.TrainJob) -> TrainJobInfo:
    failure, progress = value.failure, value.progress
    return TrainJobInfo(
        name=value.name,
        uid=value.uid,
        dataset=value.dataset,
        num_images=value.num_images,
        config=config(value.config),
        state=state(value.state),
        failure=Failure(reason=failure.reason, message=failure.message, hint=failure.hint)
        if value.HasField("failure")
        else None,
        progress=Progress(
            step=progress.step,
            num_steps=progress.num_steps,
            epoch=progress.epoch,
            num_epochs=progress.num_epochs,
            eta_s=progress.eta_s,
            activity=activity(progress.activity) if progress.HasField("activity") else None,
        ),
        create_time=time(value.create_time),
        start_time=time(value.start_time),
        end_time=time(value.end_time),
        attempt=value.attempt,
        last_sequence=value.last_sequence,
        latest_checkpoint=value.latest_checkpoint,
        queue_position=value.queue_position,
        server_version=value.server_version,
        continued_from=value.continued_from,
        min_images=value.follow.min_images,
        estimate=estimate(value.estimate) if value.HasField("estimate") else None,
        choice=value.choice,
    )


def activity(value: train_job_service_pb2.Activity) -> Activity:
    known = train_job_service_pb2.Activity.Kind.values()
    number = value.kind if value.kind in known else train_job_service_pb2.Activity.KIND_UNSPECIFIED
    kind = train_job_service_pb2.Activity.Kind.Name(number).removeprefix("KIND_")
    return Activity(kind=cast(ActivityKind, kind), done=value.done, total=value.total)


def estimate(value: train_job_service_pb2.Estimate) -> Estimate:
    return Estimate(total_s=value.total_s, step_s=value.step_s, text=value.text)


def config(value: struct_pb2.Struct) -> dict[str, Any]:
    """Return a Struct as a dict. Whole numbers become int again, because a Struct has only doubles."""
    plain: dict[str, Any] = _whole(json_format.MessageToDict(value))
    return plain


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def log_line(value: train_job_service_pb2.LogLine) -> LogLine:
    return LogLine(sequence=value.sequence, time=time(value.time), level=level(value.log), text=value.log.text)


def level(value: types_pb2.Log) -> LogLevel:
    return cast(LogLevel, types_pb2.Log.Level.Name(value.level).removeprefix("LEVEL_"))


def methods(value: train_job_service_pb2.ListMethodsResponse) -> Methods:
    return Methods(
        methods=tuple(
            Method(
                name=method.name,
                title=method.title,
                paper=method.paper,
                config_schema=json.loads(method.config_schema_json or "{}"),
            )
            for method in value.methods
        ),
        backbones=tuple(
            Backbone(name=item.name, feature_dim=item.feature_dim, num_parameters=item.num_parameters)
            for item in value.backbones
        ),
        plugin_problems=tuple(
            PluginProblem(group=item.group, name=item.name, package=item.package, problem=item.problem)
            for item in value.plugin_problems
        ),
    )


def model(value: model_service_pb2.Model) -> Model:
    return Model(
        name=value.name,
        train_job=value.train_job,
        step=value.step,
        epoch=value.epoch,
        method=value.method,
        backbone=value.backbone,
        feature_dim=value.feature_dim,
        projection_dim=value.projection_dim,
        image_size=value.image_size,
        create_time=time(value.create_time),
        num_bytes=value.num_bytes,
        weights=cast(WeightsOrigin, value.weights),
        preprocessing=_preprocessing(value.preprocessing) if value.HasField("preprocessing") else None,
    )


def _preprocessing(value: model_service_pb2.Preprocessing) -> Preprocessing:
    crop = model_service_pb2.Preprocessing.Crop.Name(value.crop).removeprefix("CROP_").lower()
    kernel = model_service_pb2.Preprocessing.Interpolation.Name(value.interpolation)
    return Preprocessing(
        image_size=value.image_size,
        resize_size=value.resize_size,
        crop=cast(Crop, crop),
        interpolation=cast(Interpolation, kernel.removeprefix("INTERPOLATION_").lower()),
        mean=tuple(value.mean),
        std=tuple(value.std),
        source=value.source,
    )


def server_info(value: model_service_pb2.GetServerInfoResponse) -> ServerInfo:
    limits = value.limits
    return ServerInfo(
        version=value.version,
        limits=Limits(
            max_message_bytes=limits.max_message_bytes,
            max_image_bytes=limits.max_image_bytes,
            max_image_pixels=limits.max_image_pixels,
            max_image_side=limits.max_image_side,
            max_batch_images=limits.max_batch_images,
        ),
        devices=tuple(
            Device(name=device.name, description=device.description, memory_bytes=device.memory_bytes)
            for device in value.devices
        ),
        start_time=time(value.start_time),
    )


def timing(value: embed_service_pb2.EmbedTiming) -> EmbedTiming:
    return EmbedTiming(queue_ms=value.queue_ms, decode_ms=value.decode_ms, forward_ms=value.forward_ms)


def tensor(value: types_pb2.Tensor) -> NDArray[np.float32 | np.float16]:
    """Return a read-only array over the bytes of the message, without a copy. Raises ValueError if shape and bytes
    disagree."""
    import numpy as np

    half = value.data_type == types_pb2.Tensor.DATA_TYPE_FLOAT16
    return np.frombuffer(value.data, dtype="<f2" if half else "<f4").reshape(tuple(value.shape))
