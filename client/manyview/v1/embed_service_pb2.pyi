from manyview.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EmbedOptions(_message.Message):
    __slots__ = ("output", "l2_normalize", "data_type")
    class Output(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTPUT_UNSPECIFIED: _ClassVar[EmbedOptions.Output]
        OUTPUT_BACKBONE: _ClassVar[EmbedOptions.Output]
        OUTPUT_PROJECTION: _ClassVar[EmbedOptions.Output]
    OUTPUT_UNSPECIFIED: EmbedOptions.Output
    OUTPUT_BACKBONE: EmbedOptions.Output
    OUTPUT_PROJECTION: EmbedOptions.Output
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    L2_NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    output: EmbedOptions.Output
    l2_normalize: bool
    data_type: _types_pb2.Tensor.DataType
    def __init__(self, output: _Optional[_Union[EmbedOptions.Output, str]] = ..., l2_normalize: bool = ..., data_type: _Optional[_Union[_types_pb2.Tensor.DataType, str]] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("model", "images", "options")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    images: _containers.RepeatedCompositeFieldContainer[_types_pb2.Image]
    options: EmbedOptions
    def __init__(self, model: _Optional[str] = ..., images: _Optional[_Iterable[_Union[_types_pb2.Image, _Mapping]]] = ..., options: _Optional[_Union[EmbedOptions, _Mapping]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("checkpoint", "embeddings", "errors", "timing")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    checkpoint: str
    embeddings: _types_pb2.Tensor
    errors: _containers.RepeatedCompositeFieldContainer[RowError]
    timing: EmbedTiming
    def __init__(self, checkpoint: _Optional[str] = ..., embeddings: _Optional[_Union[_types_pb2.Tensor, _Mapping]] = ..., errors: _Optional[_Iterable[_Union[RowError, _Mapping]]] = ..., timing: _Optional[_Union[EmbedTiming, _Mapping]] = ...) -> None: ...

class RowError(_message.Message):
    __slots__ = ("row", "error")
    ROW_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    row: int
    error: _types_pb2.ImageError
    def __init__(self, row: _Optional[int] = ..., error: _Optional[_Union[_types_pb2.ImageError, _Mapping]] = ...) -> None: ...

class EmbedTiming(_message.Message):
    __slots__ = ("queue_ms", "decode_ms", "forward_ms", "batch_images")
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    DECODE_MS_FIELD_NUMBER: _ClassVar[int]
    FORWARD_MS_FIELD_NUMBER: _ClassVar[int]
    BATCH_IMAGES_FIELD_NUMBER: _ClassVar[int]
    queue_ms: float
    decode_ms: float
    forward_ms: float
    batch_images: int
    def __init__(self, queue_ms: _Optional[float] = ..., decode_ms: _Optional[float] = ..., forward_ms: _Optional[float] = ..., batch_images: _Optional[int] = ...) -> None: ...

class EmbedStreamRequest(_message.Message):
    __slots__ = ("header", "batch")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    header: EmbedHeader
    batch: _types_pb2.ImageBatch
    def __init__(self, header: _Optional[_Union[EmbedHeader, _Mapping]] = ..., batch: _Optional[_Union[_types_pb2.ImageBatch, _Mapping]] = ...) -> None: ...

class EmbedHeader(_message.Message):
    __slots__ = ("model", "options")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    options: EmbedOptions
    def __init__(self, model: _Optional[str] = ..., options: _Optional[_Union[EmbedOptions, _Mapping]] = ...) -> None: ...

class EmbedStreamResponse(_message.Message):
    __slots__ = ("opened", "result", "error")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    opened: EmbedOpened
    result: EmbedResult
    error: _types_pb2.StreamError
    def __init__(self, opened: _Optional[_Union[EmbedOpened, _Mapping]] = ..., result: _Optional[_Union[EmbedResult, _Mapping]] = ..., error: _Optional[_Union[_types_pb2.StreamError, _Mapping]] = ...) -> None: ...

class EmbedOpened(_message.Message):
    __slots__ = ("checkpoint", "max_unanswered_batches")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    MAX_UNANSWERED_BATCHES_FIELD_NUMBER: _ClassVar[int]
    checkpoint: str
    max_unanswered_batches: int
    def __init__(self, checkpoint: _Optional[str] = ..., max_unanswered_batches: _Optional[int] = ...) -> None: ...

class EmbedResult(_message.Message):
    __slots__ = ("number", "embeddings", "errors", "timing")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    number: int
    embeddings: _types_pb2.Tensor
    errors: _containers.RepeatedCompositeFieldContainer[RowError]
    timing: EmbedTiming
    def __init__(self, number: _Optional[int] = ..., embeddings: _Optional[_Union[_types_pb2.Tensor, _Mapping]] = ..., errors: _Optional[_Iterable[_Union[RowError, _Mapping]]] = ..., timing: _Optional[_Union[EmbedTiming, _Mapping]] = ...) -> None: ...
