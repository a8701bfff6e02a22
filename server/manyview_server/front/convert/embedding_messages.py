"""Convert models and embeddings to messages of the contract, and read the options of an embedding."""

from __future__ import annotations

from manyview.v1 import embed_service_pb2, model_service_pb2, types_pb2
from manyview_server.configuration.networks.preprocessing import Preprocessing
from manyview_server.errors import InvalidArgument
from manyview_server.front.convert.dataset_messages import image_error, timestamp
from manyview_server.front.rpc.resource_names import invalid
from manyview_server.messages.embedding import EmbedDone, RowFailed
from manyview_server.store.records import Checkpoint

DATA_TYPES = {
    types_pb2.Tensor.DATA_TYPE_UNSPECIFIED: "float32",
    types_pb2.Tensor.DATA_TYPE_FLOAT32: "float32",
    types_pb2.Tensor.DATA_TYPE_FLOAT16: "float16",
}
TENSOR_TYPES = {"float32": types_pb2.Tensor.DATA_TYPE_FLOAT32, "float16": types_pb2.Tensor.DATA_TYPE_FLOAT16}
PATCH_TOKENS = "patch_tokens"
OUTPUTS = {
    embed_service_pb2.EmbedOptions.OUTPUT_UNSPECIFIED: "backbone",
    embed_service_pb2.EmbedOptions.OUTPUT_BACKBONE: "backbone",
    embed_service_pb2.EmbedOptions.OUTPUT_PROJECTION: "projection",
    embed_service_pb2.EmbedOptions.OUTPUT_CLASS_TOKEN: "class_token",
    embed_service_pb2.EmbedOptions.OUTPUT_PATCH_MEAN: "patch_mean",
    embed_service_pb2.EmbedOptions.OUTPUT_CLASS_AND_PATCH_MEAN: "class_and_patch_mean",
    embed_service_pb2.EmbedOptions.OUTPUT_PATCH_TOKENS: PATCH_TOKENS,
}

CROPS = {
    "squash": model_service_pb2.Preprocessing.CROP_SQUASH,
    "center": model_service_pb2.Preprocessing.CROP_CENTER,
}
INTERPOLATIONS = {
    "bilinear": model_service_pb2.Preprocessing.INTERPOLATION_BILINEAR,
    "bicubic": model_service_pb2.Preprocessing.INTERPOLATION_BICUBIC,
}


def checkpoint_model(record: Checkpoint) -> model_service_pb2.Model:
    """Convert a checkpoint to a model."""
    card = record.model
    return model_service_pb2.Model(
        name=record.name,
        train_job=f"trainJobs/{record.train_job_id}",
        step=record.step,
        epoch=record.epoch,
        method=card["method"],
        backbone=card["backbone"],
        feature_dim=card["feature_dim"],
        projection_dim=card["projection_dim"],
        image_size=card["image_size"],
        create_time=timestamp(record.create_time),
        num_bytes=record.num_bytes,
        weights="trained",
        preprocessing=preprocessing(
            Preprocessing.squashed(card["image_size"], tuple(card["mean"]), tuple(card["std"]), record.name)
        ),
    )


def preprocessing(value: Preprocessing) -> model_service_pb2.Preprocessing:
    """Convert the preparation of an image."""
    return model_service_pb2.Preprocessing(
        image_size=value.image_size,
        resize_size=value.resize_size,
        crop=CROPS[value.crop],
        interpolation=INTERPOLATIONS[value.interpolation],
        mean=value.mean,
        std=value.std,
        source=value.source,
    )


def data_type(value: types_pb2.Tensor.DataType) -> str:
    """Return the name of the type of the elements."""
    if value not in DATA_TYPES:
        raise _unknown_enum("options.data_type", value)
    return DATA_TYPES[value]


def output(value: embed_service_pb2.EmbedOptions.Output, field: str = "options.output") -> str:
    """Return the name of the network's output."""
    if value not in OUTPUTS:
        raise _unknown_enum(field, value)
    return OUTPUTS[value]


def row_output(value: embed_service_pb2.EmbedOptions.Output, field: str = "options.output") -> str:
    """Return the name of an output that is one row of numbers for each image."""
    name = output(value, field)
    if name == PATCH_TOKENS:
        raise invalid(field, "patch tokens are only for images that the call brings, not for those of a data set")
    return name


def _unknown_enum(field: str, value: int) -> InvalidArgument:
    return invalid(field, f"{value} is not a value of this enum")


def tensor(done: EmbedDone, type_name: str) -> types_pb2.Tensor:
    """Convert the embeddings of a batch."""
    num_rows, width = done.shape
    shape = (num_rows, width // done.token_dim, done.token_dim) if done.token_dim else done.shape
    return types_pb2.Tensor(data_type=TENSOR_TYPES[type_name], shape=shape, data=done.blobs[0])


def row_error(failed: RowFailed) -> embed_service_pb2.RowError:
    """Convert the error of a row."""
    return embed_service_pb2.RowError(row=failed.row, error=image_error(failed.reason, failed.message))


def timing(done: EmbedDone) -> embed_service_pb2.EmbedTiming:
    """Convert the times that a batch took."""
    return embed_service_pb2.EmbedTiming(
        queue_ms=done.queue_ms, decode_ms=done.decode_ms, forward_ms=done.forward_ms, batch_images=done.batch_images
    )
