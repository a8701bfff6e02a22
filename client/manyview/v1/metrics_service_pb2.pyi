from google.protobuf import timestamp_pb2 as _timestamp_pb2
from manyview.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubscribeMetricsRequest(_message.Message):
    __slots__ = ("train_job", "after_sequence", "follow", "kinds")
    TRAIN_JOB_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    train_job: str
    after_sequence: int
    follow: bool
    kinds: _containers.RepeatedScalarFieldContainer[MetricsEvent.Kind]
    def __init__(self, train_job: _Optional[str] = ..., after_sequence: _Optional[int] = ..., follow: bool = ..., kinds: _Optional[_Iterable[_Union[MetricsEvent.Kind, str]]] = ...) -> None: ...

class SubscribeMetricsResponse(_message.Message):
    __slots__ = ("events", "cursor", "end")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[MetricsEvent]
    cursor: int
    end: EndOfStream
    def __init__(self, events: _Optional[_Iterable[_Union[MetricsEvent, _Mapping]]] = ..., cursor: _Optional[int] = ..., end: _Optional[_Union[EndOfStream, _Mapping]] = ...) -> None: ...

class EndOfStream(_message.Message):
    __slots__ = ("reason", "state")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[EndOfStream.Reason]
        REASON_JOB_TERMINAL: _ClassVar[EndOfStream.Reason]
        REASON_CAUGHT_UP: _ClassVar[EndOfStream.Reason]
        REASON_DRAINING: _ClassVar[EndOfStream.Reason]
        REASON_DELETED: _ClassVar[EndOfStream.Reason]
    REASON_UNSPECIFIED: EndOfStream.Reason
    REASON_JOB_TERMINAL: EndOfStream.Reason
    REASON_CAUGHT_UP: EndOfStream.Reason
    REASON_DRAINING: EndOfStream.Reason
    REASON_DELETED: EndOfStream.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    reason: EndOfStream.Reason
    state: _types_pb2.TrainJobState
    def __init__(self, reason: _Optional[_Union[EndOfStream.Reason, str]] = ..., state: _Optional[_Union[_types_pb2.TrainJobState, str]] = ...) -> None: ...

class MetricsEvent(_message.Message):
    __slots__ = ("sequence", "time", "attempt", "step", "epoch", "kind", "scalars", "state_change", "checkpoint", "rollback", "alert", "log", "snapshot")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[MetricsEvent.Kind]
        KIND_SCALARS: _ClassVar[MetricsEvent.Kind]
        KIND_STATE: _ClassVar[MetricsEvent.Kind]
        KIND_CHECKPOINT: _ClassVar[MetricsEvent.Kind]
        KIND_ROLLBACK: _ClassVar[MetricsEvent.Kind]
        KIND_ALERT: _ClassVar[MetricsEvent.Kind]
        KIND_LOG: _ClassVar[MetricsEvent.Kind]
        KIND_SNAPSHOT: _ClassVar[MetricsEvent.Kind]
    KIND_UNSPECIFIED: MetricsEvent.Kind
    KIND_SCALARS: MetricsEvent.Kind
    KIND_STATE: MetricsEvent.Kind
    KIND_CHECKPOINT: MetricsEvent.Kind
    KIND_ROLLBACK: MetricsEvent.Kind
    KIND_ALERT: MetricsEvent.Kind
    KIND_LOG: MetricsEvent.Kind
    KIND_SNAPSHOT: MetricsEvent.Kind
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SCALARS_FIELD_NUMBER: _ClassVar[int]
    STATE_CHANGE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    ALERT_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    attempt: int
    step: int
    epoch: int
    kind: MetricsEvent.Kind
    scalars: Scalars
    state_change: StateChange
    checkpoint: CheckpointSaved
    rollback: Rollback
    alert: Alert
    log: _types_pb2.Log
    snapshot: SnapshotAdopted
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., attempt: _Optional[int] = ..., step: _Optional[int] = ..., epoch: _Optional[int] = ..., kind: _Optional[_Union[MetricsEvent.Kind, str]] = ..., scalars: _Optional[_Union[Scalars, _Mapping]] = ..., state_change: _Optional[_Union[StateChange, _Mapping]] = ..., checkpoint: _Optional[_Union[CheckpointSaved, _Mapping]] = ..., rollback: _Optional[_Union[Rollback, _Mapping]] = ..., alert: _Optional[_Union[Alert, _Mapping]] = ..., log: _Optional[_Union[_types_pb2.Log, _Mapping]] = ..., snapshot: _Optional[_Union[SnapshotAdopted, _Mapping]] = ...) -> None: ...

class Scalars(_message.Message):
    __slots__ = ("values",)
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.ScalarMap[str, float]
    def __init__(self, values: _Optional[_Mapping[str, float]] = ...) -> None: ...

class StateChange(_message.Message):
    __slots__ = ("to", "reason", "message")
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    to: _types_pb2.TrainJobState
    reason: str
    message: str
    def __init__(self, to: _Optional[_Union[_types_pb2.TrainJobState, str]] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., **kwargs) -> None: ...

class CheckpointSaved(_message.Message):
    __slots__ = ("name", "num_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    num_bytes: int
    def __init__(self, name: _Optional[str] = ..., num_bytes: _Optional[int] = ...) -> None: ...

class Rollback(_message.Message):
    __slots__ = ("to_step", "superseded_after_sequence")
    TO_STEP_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    to_step: int
    superseded_after_sequence: int
    def __init__(self, to_step: _Optional[int] = ..., superseded_after_sequence: _Optional[int] = ...) -> None: ...

class SnapshotAdopted(_message.Message):
    __slots__ = ("num_images", "num_added")
    NUM_IMAGES_FIELD_NUMBER: _ClassVar[int]
    NUM_ADDED_FIELD_NUMBER: _ClassVar[int]
    num_images: int
    num_added: int
    def __init__(self, num_images: _Optional[int] = ..., num_added: _Optional[int] = ...) -> None: ...

class Alert(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class QueryMetricsRequest(_message.Message):
    __slots__ = ("train_job", "metric_names", "max_rows", "page_size", "page_token")
    TRAIN_JOB_FIELD_NUMBER: _ClassVar[int]
    METRIC_NAMES_FIELD_NUMBER: _ClassVar[int]
    MAX_ROWS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    train_job: str
    metric_names: _containers.RepeatedScalarFieldContainer[str]
    max_rows: int
    page_size: int
    page_token: str
    def __init__(self, train_job: _Optional[str] = ..., metric_names: _Optional[_Iterable[str]] = ..., max_rows: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class QueryMetricsResponse(_message.Message):
    __slots__ = ("rows", "next_page_token")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[MetricsRow]
    next_page_token: str
    def __init__(self, rows: _Optional[_Iterable[_Union[MetricsRow, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class MetricsRow(_message.Message):
    __slots__ = ("sequence", "time", "attempt", "step", "epoch", "values")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    attempt: int
    step: int
    epoch: int
    values: _containers.ScalarMap[str, float]
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., attempt: _Optional[int] = ..., step: _Optional[int] = ..., epoch: _Optional[int] = ..., values: _Optional[_Mapping[str, float]] = ...) -> None: ...
