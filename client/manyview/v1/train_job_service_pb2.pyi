from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from manyview.v1 import dataset_service_pb2 as _dataset_service_pb2
from manyview.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrainJob(_message.Message):
    __slots__ = ("name", "uid", "dataset", "num_images", "config", "state", "failure", "progress", "create_time", "start_time", "end_time", "attempt", "last_sequence", "latest_checkpoint", "queue_position", "server_version", "follow", "continued_from", "estimate", "choice")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    NUM_IMAGES_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LATEST_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    CONTINUED_FROM_FIELD_NUMBER: _ClassVar[int]
    ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    dataset: str
    num_images: int
    config: _struct_pb2.Struct
    state: _types_pb2.TrainJobState
    failure: Failure
    progress: Progress
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    attempt: int
    last_sequence: int
    latest_checkpoint: str
    queue_position: int
    server_version: str
    follow: Follow
    continued_from: str
    estimate: Estimate
    choice: str
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., dataset: _Optional[str] = ..., num_images: _Optional[int] = ..., config: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., state: _Optional[_Union[_types_pb2.TrainJobState, str]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., attempt: _Optional[int] = ..., last_sequence: _Optional[int] = ..., latest_checkpoint: _Optional[str] = ..., queue_position: _Optional[int] = ..., server_version: _Optional[str] = ..., follow: _Optional[_Union[Follow, _Mapping]] = ..., continued_from: _Optional[str] = ..., estimate: _Optional[_Union[Estimate, _Mapping]] = ..., choice: _Optional[str] = ...) -> None: ...

class Estimate(_message.Message):
    __slots__ = ("total_s", "step_s", "text")
    TOTAL_S_FIELD_NUMBER: _ClassVar[int]
    STEP_S_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    total_s: float
    step_s: float
    text: str
    def __init__(self, total_s: _Optional[float] = ..., step_s: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class Follow(_message.Message):
    __slots__ = ("min_images",)
    MIN_IMAGES_FIELD_NUMBER: _ClassVar[int]
    min_images: int
    def __init__(self, min_images: _Optional[int] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("reason", "message", "hint")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    hint: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("step", "num_steps", "epoch", "num_epochs", "eta_s", "activity")
    STEP_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NUM_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    ETA_S_FIELD_NUMBER: _ClassVar[int]
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    step: int
    num_steps: int
    epoch: int
    num_epochs: int
    eta_s: float
    activity: Activity
    def __init__(self, step: _Optional[int] = ..., num_steps: _Optional[int] = ..., epoch: _Optional[int] = ..., num_epochs: _Optional[int] = ..., eta_s: _Optional[float] = ..., activity: _Optional[_Union[Activity, _Mapping]] = ...) -> None: ...

class Activity(_message.Message):
    __slots__ = ("kind", "done", "total")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Activity.Kind]
        KIND_WAITING_FOR_DEVICE: _ClassVar[Activity.Kind]
        KIND_WAITING_FOR_IMAGES: _ClassVar[Activity.Kind]
        KIND_STARTING_WORKER: _ClassVar[Activity.Kind]
        KIND_DECODING: _ClassVar[Activity.Kind]
        KIND_BUILDING_MODEL: _ClassVar[Activity.Kind]
        KIND_MEASURING_BASELINE: _ClassVar[Activity.Kind]
        KIND_TRAINING: _ClassVar[Activity.Kind]
        KIND_EVALUATING: _ClassVar[Activity.Kind]
        KIND_STOPPING: _ClassVar[Activity.Kind]
    KIND_UNSPECIFIED: Activity.Kind
    KIND_WAITING_FOR_DEVICE: Activity.Kind
    KIND_WAITING_FOR_IMAGES: Activity.Kind
    KIND_STARTING_WORKER: Activity.Kind
    KIND_DECODING: Activity.Kind
    KIND_BUILDING_MODEL: Activity.Kind
    KIND_MEASURING_BASELINE: Activity.Kind
    KIND_TRAINING: Activity.Kind
    KIND_EVALUATING: Activity.Kind
    KIND_STOPPING: Activity.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    kind: Activity.Kind
    done: int
    total: int
    def __init__(self, kind: _Optional[_Union[Activity.Kind, str]] = ..., done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class CreateTrainJobRequest(_message.Message):
    __slots__ = ("train_job_id", "dataset", "method", "config", "request_id", "validate_only", "clone_from", "continue_from", "follow", "time_budget_s")
    TRAIN_JOB_ID_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    CLONE_FROM_FIELD_NUMBER: _ClassVar[int]
    CONTINUE_FROM_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    TIME_BUDGET_S_FIELD_NUMBER: _ClassVar[int]
    train_job_id: str
    dataset: str
    method: str
    config: _struct_pb2.Struct
    request_id: str
    validate_only: bool
    clone_from: str
    continue_from: str
    follow: Follow
    time_budget_s: float
    def __init__(self, train_job_id: _Optional[str] = ..., dataset: _Optional[str] = ..., method: _Optional[str] = ..., config: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., request_id: _Optional[str] = ..., validate_only: bool = ..., clone_from: _Optional[str] = ..., continue_from: _Optional[str] = ..., follow: _Optional[_Union[Follow, _Mapping]] = ..., time_budget_s: _Optional[float] = ...) -> None: ...

class CreateTrainJobResponse(_message.Message):
    __slots__ = ("train_job",)
    TRAIN_JOB_FIELD_NUMBER: _ClassVar[int]
    train_job: TrainJob
    def __init__(self, train_job: _Optional[_Union[TrainJob, _Mapping]] = ...) -> None: ...

class GetTrainJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetTrainJobResponse(_message.Message):
    __slots__ = ("train_job",)
    TRAIN_JOB_FIELD_NUMBER: _ClassVar[int]
    train_job: TrainJob
    def __init__(self, train_job: _Optional[_Union[TrainJob, _Mapping]] = ...) -> None: ...

class ListTrainJobsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListTrainJobsResponse(_message.Message):
    __slots__ = ("train_jobs", "next_page_token")
    TRAIN_JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    train_jobs: _containers.RepeatedCompositeFieldContainer[TrainJob]
    next_page_token: str
    def __init__(self, train_jobs: _Optional[_Iterable[_Union[TrainJob, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteTrainJobRequest(_message.Message):
    __slots__ = ("name", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteTrainJobResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseTrainJobRequest(_message.Message):
    __slots__ = ("name", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class PauseTrainJobResponse(_message.Message):
    __slots__ = ("train_job",)
    TRAIN_JOB_FIELD_NUMBER: _ClassVar[int]
    train_job: TrainJob
    def __init__(self, train_job: _Optional[_Union[TrainJob, _Mapping]] = ...) -> None: ...

class ResumeTrainJobRequest(_message.Message):
    __slots__ = ("name", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class ResumeTrainJobResponse(_message.Message):
    __slots__ = ("train_job",)
    TRAIN_JOB_FIELD_NUMBER: _ClassVar[int]
    train_job: TrainJob
    def __init__(self, train_job: _Optional[_Union[TrainJob, _Mapping]] = ...) -> None: ...

class CancelTrainJobRequest(_message.Message):
    __slots__ = ("name", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class CancelTrainJobResponse(_message.Message):
    __slots__ = ("train_job",)
    TRAIN_JOB_FIELD_NUMBER: _ClassVar[int]
    train_job: TrainJob
    def __init__(self, train_job: _Optional[_Union[TrainJob, _Mapping]] = ...) -> None: ...

class ListMethodsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListMethodsResponse(_message.Message):
    __slots__ = ("methods", "backbones", "plugin_problems")
    METHODS_FIELD_NUMBER: _ClassVar[int]
    BACKBONES_FIELD_NUMBER: _ClassVar[int]
    PLUGIN_PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    methods: _containers.RepeatedCompositeFieldContainer[Method]
    backbones: _containers.RepeatedCompositeFieldContainer[Backbone]
    plugin_problems: _containers.RepeatedCompositeFieldContainer[PluginProblem]
    def __init__(self, methods: _Optional[_Iterable[_Union[Method, _Mapping]]] = ..., backbones: _Optional[_Iterable[_Union[Backbone, _Mapping]]] = ..., plugin_problems: _Optional[_Iterable[_Union[PluginProblem, _Mapping]]] = ...) -> None: ...

class Method(_message.Message):
    __slots__ = ("name", "title", "paper", "config_schema_json")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    PAPER_FIELD_NUMBER: _ClassVar[int]
    CONFIG_SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    name: str
    title: str
    paper: str
    config_schema_json: str
    def __init__(self, name: _Optional[str] = ..., title: _Optional[str] = ..., paper: _Optional[str] = ..., config_schema_json: _Optional[str] = ...) -> None: ...

class Backbone(_message.Message):
    __slots__ = ("name", "feature_dim", "num_parameters")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FEATURE_DIM_FIELD_NUMBER: _ClassVar[int]
    NUM_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    feature_dim: int
    num_parameters: int
    def __init__(self, name: _Optional[str] = ..., feature_dim: _Optional[int] = ..., num_parameters: _Optional[int] = ...) -> None: ...

class PluginProblem(_message.Message):
    __slots__ = ("group", "name", "package", "problem")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    group: str
    name: str
    package: str
    problem: str
    def __init__(self, group: _Optional[str] = ..., name: _Optional[str] = ..., package: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class PreviewViewsRequest(_message.Message):
    __slots__ = ("train_job", "method", "config", "epoch", "dataset", "images")
    TRAIN_JOB_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    train_job: str
    method: str
    config: _struct_pb2.Struct
    epoch: int
    dataset: str
    images: _containers.RepeatedCompositeFieldContainer[PreviewImage]
    def __init__(self, train_job: _Optional[str] = ..., method: _Optional[str] = ..., config: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., epoch: _Optional[int] = ..., dataset: _Optional[str] = ..., images: _Optional[_Iterable[_Union[PreviewImage, _Mapping]]] = ...) -> None: ...

class PreviewImage(_message.Message):
    __slots__ = ("image", "stored")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    image: _types_pb2.Image
    stored: _dataset_service_pb2.ImageRef
    def __init__(self, image: _Optional[_Union[_types_pb2.Image, _Mapping]] = ..., stored: _Optional[_Union[_dataset_service_pb2.ImageRef, _Mapping]] = ...) -> None: ...

class PreviewViewsResponse(_message.Message):
    __slots__ = ("images", "decode_size")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    DECODE_SIZE_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[PreviewedImage]
    decode_size: int
    def __init__(self, images: _Optional[_Iterable[_Union[PreviewedImage, _Mapping]]] = ..., decode_size: _Optional[int] = ...) -> None: ...

class PreviewedImage(_message.Message):
    __slots__ = ("error", "image_id", "width", "height", "original", "views")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    ORIGINAL_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    error: _types_pb2.ImageError
    image_id: str
    width: int
    height: int
    original: bytes
    views: _containers.RepeatedCompositeFieldContainer[PreviewedView]
    def __init__(self, error: _Optional[_Union[_types_pb2.ImageError, _Mapping]] = ..., image_id: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., original: _Optional[bytes] = ..., views: _Optional[_Iterable[_Union[PreviewedView, _Mapping]]] = ...) -> None: ...

class PreviewedView(_message.Message):
    __slots__ = ("pipeline", "size", "png", "parameters_json")
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    PNG_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_JSON_FIELD_NUMBER: _ClassVar[int]
    pipeline: int
    size: int
    png: bytes
    parameters_json: str
    def __init__(self, pipeline: _Optional[int] = ..., size: _Optional[int] = ..., png: _Optional[bytes] = ..., parameters_json: _Optional[str] = ...) -> None: ...

class TailLogsRequest(_message.Message):
    __slots__ = ("train_job", "num_lines", "follow")
    TRAIN_JOB_FIELD_NUMBER: _ClassVar[int]
    NUM_LINES_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    train_job: str
    num_lines: int
    follow: bool
    def __init__(self, train_job: _Optional[str] = ..., num_lines: _Optional[int] = ..., follow: bool = ...) -> None: ...

class TailLogsResponse(_message.Message):
    __slots__ = ("lines", "end")
    LINES_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedCompositeFieldContainer[LogLine]
    end: bool
    def __init__(self, lines: _Optional[_Iterable[_Union[LogLine, _Mapping]]] = ..., end: bool = ...) -> None: ...

class LogLine(_message.Message):
    __slots__ = ("sequence", "time", "log")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    log: _types_pb2.Log
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., log: _Optional[_Union[_types_pb2.Log, _Mapping]] = ...) -> None: ...
