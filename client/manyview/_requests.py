"""Parts of requests: arguments of the SDK as fields of generated messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf import json_format, struct_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from manyview import _arguments
from manyview._arguments import count
from manyview._types.words import DataType, Metric, Output
from manyview.v1 import embed_service_pb2 as embeds
from manyview.v1 import types_pb2

V = TypeVar("V")

DEFAULT_METHOD = "simclr"

_OUTPUTS: dict[Output, embeds.EmbedOptions.Output] = {
    "backbone": embeds.EmbedOptions.OUTPUT_BACKBONE,
    "projection": embeds.EmbedOptions.OUTPUT_PROJECTION,
    "class_token": embeds.EmbedOptions.OUTPUT_CLASS_TOKEN,
    "patch_mean": embeds.EmbedOptions.OUTPUT_PATCH_MEAN,
    "class_and_patch_mean": embeds.EmbedOptions.OUTPUT_CLASS_AND_PATCH_MEAN,
    "patch_tokens": embeds.EmbedOptions.OUTPUT_PATCH_TOKENS,
}
_METRICS: dict[Metric, embeds.Metric] = {"cosine": embeds.METRIC_COSINE, "euclidean": embeds.METRIC_EUCLIDEAN}
_DATA_TYPES: dict[DataType, types_pb2.Tensor.DataType] = {
    "float32": types_pb2.Tensor.DATA_TYPE_FLOAT32,
    "float16": types_pb2.Tensor.DATA_TYPE_FLOAT16,
}


def one_of(argument: str, word: str, known: Mapping[Any, V]) -> V:
    """Return the value of a word. Raises ValueError that lists the known words."""
    return known[_arguments.one_of(argument, word, known)]


def output(word: Output) -> embeds.EmbedOptions.Output:
    """Return an output of a network. Raises ValueError for an unknown one."""
    return one_of("output", word, _OUTPUTS)


def metric(word: Metric) -> embeds.Metric:
    """Return a metric between embeddings. Raises ValueError for an unknown one."""
    return one_of("metric", word, _METRICS)


def embed_options(output_word: Output, l2_normalize: bool, dtype: DataType) -> embeds.EmbedOptions:
    """Return the options of an embedding. Raises ValueError for an unknown output or dtype."""
    return embeds.EmbedOptions(
        output=output(output_word), l2_normalize=l2_normalize, data_type=one_of("dtype", str(dtype), _DATA_TYPES)
    )


def set_number(message: Message, name: str, value: float) -> None:
    """Set a numeric field of a request. Raises ValueError that names the field if it cannot hold the value."""
    try:
        setattr(message, name, value)
    except (ValueError, TypeError) as error:
        kind = message.DESCRIPTOR.fields_by_name[name].cpp_type
        most = {FieldDescriptor.CPPTYPE_INT32: 2**31 - 1, FieldDescriptor.CPPTYPE_INT64: 2**63 - 1}.get(kind)
        allowed = "a number" if most is None else f"a whole number of at most {most:,}"
        raise ValueError(f"{name} must be {allowed}, not {value!r}") from error


def set_count(message: Message, name: str, value: int | None) -> None:
    """Set a numeric field of a request unless `value` is None. Raises ValueError for a number below 1, because the
    contract reads 0 as the default."""
    if value is not None:
        count(name, value)
        set_number(message, name, value)


def config_struct(value: Mapping[str, Any]) -> struct_pb2.Struct:
    """Return a configuration as a Struct. Raises ValueError if JSON cannot represent it."""
    try:
        return json_format.ParseDict(json.loads(json.dumps(dict(value), allow_nan=False)), struct_pb2.Struct())
    except (TypeError, ValueError) as error:
        raise ValueError(f"config has a value that JSON cannot represent: {error}") from error
