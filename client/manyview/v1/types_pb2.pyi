from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrainJobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRAIN_JOB_STATE_UNSPECIFIED: _ClassVar[TrainJobState]
    TRAIN_JOB_STATE_QUEUED: _ClassVar[TrainJobState]
    TRAIN_JOB_STATE_STARTING: _ClassVar[TrainJobState]
    TRAIN_JOB_STATE_RUNNING: _ClassVar[TrainJobState]
    TRAIN_JOB_STATE_RECOVERING: _ClassVar[TrainJobState]
    TRAIN_JOB_STATE_CANCELLING: _ClassVar[TrainJobState]
    TRAIN_JOB_STATE_CANCELLED: _ClassVar[TrainJobState]
    TRAIN_JOB_STATE_SUCCEEDED: _ClassVar[TrainJobState]
    TRAIN_JOB_STATE_FAILED: _ClassVar[TrainJobState]
    TRAIN_JOB_STATE_PAUSING: _ClassVar[TrainJobState]
    TRAIN_JOB_STATE_PAUSED: _ClassVar[TrainJobState]
TRAIN_JOB_STATE_UNSPECIFIED: TrainJobState
TRAIN_JOB_STATE_QUEUED: TrainJobState
TRAIN_JOB_STATE_STARTING: TrainJobState
TRAIN_JOB_STATE_RUNNING: TrainJobState
TRAIN_JOB_STATE_RECOVERING: TrainJobState
TRAIN_JOB_STATE_CANCELLING: TrainJobState
TRAIN_JOB_STATE_CANCELLED: TrainJobState
TRAIN_JOB_STATE_SUCCEEDED: TrainJobState
TRAIN_JOB_STATE_FAILED: TrainJobState
TRAIN_JOB_STATE_PAUSING: TrainJobState
TRAIN_JOB_STATE_PAUSED: TrainJobState

class Image(_message.Message):
    __slots__ = ("data", "key", "label", "sha256")
    DATA_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    key: str
    label: str
    sha256: bytes
    def __init__(self, data: _Optional[bytes] = ..., key: _Optional[str] = ..., label: _Optional[str] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class ImageBatch(_message.Message):
    __slots__ = ("number", "images")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    number: int
    images: _containers.RepeatedCompositeFieldContainer[Image]
    def __init__(self, number: _Optional[int] = ..., images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ...) -> None: ...

class ImageError(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("data_type", "shape", "data")
    class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DATA_TYPE_UNSPECIFIED: _ClassVar[Tensor.DataType]
        DATA_TYPE_FLOAT32: _ClassVar[Tensor.DataType]
        DATA_TYPE_FLOAT16: _ClassVar[Tensor.DataType]
    DATA_TYPE_UNSPECIFIED: Tensor.DataType
    DATA_TYPE_FLOAT32: Tensor.DataType
    DATA_TYPE_FLOAT16: Tensor.DataType
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    data_type: Tensor.DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, data_type: _Optional[_Union[Tensor.DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class StreamError(_message.Message):
    __slots__ = ("code", "message", "reason", "metadata", "retry_after_ms")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    reason: str
    metadata: _containers.ScalarMap[str, str]
    retry_after_ms: int
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., reason: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class Log(_message.Message):
    __slots__ = ("level", "text")
    class Level(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        LEVEL_UNSPECIFIED: _ClassVar[Log.Level]
        LEVEL_INFO: _ClassVar[Log.Level]
        LEVEL_WARNING: _ClassVar[Log.Level]
        LEVEL_ERROR: _ClassVar[Log.Level]
    LEVEL_UNSPECIFIED: Log.Level
    LEVEL_INFO: Log.Level
    LEVEL_WARNING: Log.Level
    LEVEL_ERROR: Log.Level
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    level: Log.Level
    text: str
    def __init__(self, level: _Optional[_Union[Log.Level, str]] = ..., text: _Optional[str] = ...) -> None: ...
