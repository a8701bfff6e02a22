from manyview.v1 import dataset_service_pb2 as _dataset_service_pb2
from manyview.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Metric(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_UNSPECIFIED: _ClassVar[Metric]
    METRIC_COSINE: _ClassVar[Metric]
    METRIC_EUCLIDEAN: _ClassVar[Metric]
METRIC_UNSPECIFIED: Metric
METRIC_COSINE: Metric
METRIC_EUCLIDEAN: Metric

class EmbedOptions(_message.Message):
    __slots__ = ("output", "l2_normalize", "data_type")
    class Output(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTPUT_UNSPECIFIED: _ClassVar[EmbedOptions.Output]
        OUTPUT_BACKBONE: _ClassVar[EmbedOptions.Output]
        OUTPUT_PROJECTION: _ClassVar[EmbedOptions.Output]
        OUTPUT_CLASS_TOKEN: _ClassVar[EmbedOptions.Output]
        OUTPUT_PATCH_MEAN: _ClassVar[EmbedOptions.Output]
        OUTPUT_CLASS_AND_PATCH_MEAN: _ClassVar[EmbedOptions.Output]
        OUTPUT_PATCH_TOKENS: _ClassVar[EmbedOptions.Output]
    OUTPUT_UNSPECIFIED: EmbedOptions.Output
    OUTPUT_BACKBONE: EmbedOptions.Output
    OUTPUT_PROJECTION: EmbedOptions.Output
    OUTPUT_CLASS_TOKEN: EmbedOptions.Output
    OUTPUT_PATCH_MEAN: EmbedOptions.Output
    OUTPUT_CLASS_AND_PATCH_MEAN: EmbedOptions.Output
    OUTPUT_PATCH_TOKENS: EmbedOptions.Output
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

class EmbeddingsOpened(_message.Message):
    __slots__ = ("checkpoint", "version")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    checkpoint: str
    version: int
    def __init__(self, checkpoint: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class EmbeddingsProgress(_message.Message):
    __slots__ = ("stage", "done", "total")
    class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STAGE_UNSPECIFIED: _ClassVar[EmbeddingsProgress.Stage]
        STAGE_EMBEDDING: _ClassVar[EmbeddingsProgress.Stage]
        STAGE_COMPUTING: _ClassVar[EmbeddingsProgress.Stage]
        STAGE_STARTING_WORKER: _ClassVar[EmbeddingsProgress.Stage]
        STAGE_QUEUED: _ClassVar[EmbeddingsProgress.Stage]
        STAGE_EMBEDDING_QUERIES: _ClassVar[EmbeddingsProgress.Stage]
    STAGE_UNSPECIFIED: EmbeddingsProgress.Stage
    STAGE_EMBEDDING: EmbeddingsProgress.Stage
    STAGE_COMPUTING: EmbeddingsProgress.Stage
    STAGE_STARTING_WORKER: EmbeddingsProgress.Stage
    STAGE_QUEUED: EmbeddingsProgress.Stage
    STAGE_EMBEDDING_QUERIES: EmbeddingsProgress.Stage
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    stage: EmbeddingsProgress.Stage
    done: int
    total: int
    def __init__(self, stage: _Optional[_Union[EmbeddingsProgress.Stage, str]] = ..., done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class EmbedDatasetRequest(_message.Message):
    __slots__ = ("dataset", "model", "options", "version", "pca", "page_token")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PCA_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    model: str
    options: EmbedOptions
    version: int
    pca: Pca
    page_token: str
    def __init__(self, dataset: _Optional[str] = ..., model: _Optional[str] = ..., options: _Optional[_Union[EmbedOptions, _Mapping]] = ..., version: _Optional[int] = ..., pca: _Optional[_Union[Pca, _Mapping]] = ..., page_token: _Optional[str] = ...) -> None: ...

class Pca(_message.Message):
    __slots__ = ("num_components", "variance_fraction", "whiten")
    NUM_COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    VARIANCE_FRACTION_FIELD_NUMBER: _ClassVar[int]
    WHITEN_FIELD_NUMBER: _ClassVar[int]
    num_components: int
    variance_fraction: float
    whiten: bool
    def __init__(self, num_components: _Optional[int] = ..., variance_fraction: _Optional[float] = ..., whiten: bool = ...) -> None: ...

class EmbedDatasetResponse(_message.Message):
    __slots__ = ("opened", "progress", "pca", "page", "end")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PCA_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    opened: EmbedDatasetOpened
    progress: EmbeddingsProgress
    pca: PcaFit
    page: EmbeddingsPage
    end: EmbedDatasetEnd
    def __init__(self, opened: _Optional[_Union[EmbedDatasetOpened, _Mapping]] = ..., progress: _Optional[_Union[EmbeddingsProgress, _Mapping]] = ..., pca: _Optional[_Union[PcaFit, _Mapping]] = ..., page: _Optional[_Union[EmbeddingsPage, _Mapping]] = ..., end: _Optional[_Union[EmbedDatasetEnd, _Mapping]] = ...) -> None: ...

class EmbedDatasetOpened(_message.Message):
    __slots__ = ("checkpoint", "version", "page_token")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    checkpoint: str
    version: int
    page_token: str
    def __init__(self, checkpoint: _Optional[str] = ..., version: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class PcaFit(_message.Message):
    __slots__ = ("num_components", "variance_kept")
    NUM_COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    VARIANCE_KEPT_FIELD_NUMBER: _ClassVar[int]
    num_components: int
    variance_kept: float
    def __init__(self, num_components: _Optional[int] = ..., variance_kept: _Optional[float] = ...) -> None: ...

class EmbeddingsPage(_message.Message):
    __slots__ = ("first_row", "embeddings", "images", "errors", "page_token")
    FIRST_ROW_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    first_row: int
    embeddings: _types_pb2.Tensor
    images: _containers.RepeatedCompositeFieldContainer[_dataset_service_pb2.StoredImage]
    errors: _containers.RepeatedCompositeFieldContainer[RowError]
    page_token: str
    def __init__(self, first_row: _Optional[int] = ..., embeddings: _Optional[_Union[_types_pb2.Tensor, _Mapping]] = ..., images: _Optional[_Iterable[_Union[_dataset_service_pb2.StoredImage, _Mapping]]] = ..., errors: _Optional[_Iterable[_Union[RowError, _Mapping]]] = ..., page_token: _Optional[str] = ...) -> None: ...

class EmbedDatasetEnd(_message.Message):
    __slots__ = ("num_images",)
    NUM_IMAGES_FIELD_NUMBER: _ClassVar[int]
    num_images: int
    def __init__(self, num_images: _Optional[int] = ...) -> None: ...

class SelectSamplesRequest(_message.Message):
    __slots__ = ("dataset", "model", "output", "version", "metric", "count", "chosen", "random", "coreset", "minimum_distance", "typicality", "similarity", "balance")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    RANDOM_FIELD_NUMBER: _ClassVar[int]
    CORESET_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    TYPICALITY_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    BALANCE_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    model: str
    output: EmbedOptions.Output
    version: int
    metric: Metric
    count: int
    chosen: _containers.RepeatedCompositeFieldContainer[_dataset_service_pb2.ImageRef]
    random: RandomStrategy
    coreset: CoresetStrategy
    minimum_distance: MinimumDistanceStrategy
    typicality: TypicalityStrategy
    similarity: SimilarityStrategy
    balance: ClassBalance
    def __init__(self, dataset: _Optional[str] = ..., model: _Optional[str] = ..., output: _Optional[_Union[EmbedOptions.Output, str]] = ..., version: _Optional[int] = ..., metric: _Optional[_Union[Metric, str]] = ..., count: _Optional[int] = ..., chosen: _Optional[_Iterable[_Union[_dataset_service_pb2.ImageRef, _Mapping]]] = ..., random: _Optional[_Union[RandomStrategy, _Mapping]] = ..., coreset: _Optional[_Union[CoresetStrategy, _Mapping]] = ..., minimum_distance: _Optional[_Union[MinimumDistanceStrategy, _Mapping]] = ..., typicality: _Optional[_Union[TypicalityStrategy, _Mapping]] = ..., similarity: _Optional[_Union[SimilarityStrategy, _Mapping]] = ..., balance: _Optional[_Union[ClassBalance, _Mapping]] = ...) -> None: ...

class RandomStrategy(_message.Message):
    __slots__ = ("seed",)
    SEED_FIELD_NUMBER: _ClassVar[int]
    seed: int
    def __init__(self, seed: _Optional[int] = ...) -> None: ...

class CoresetStrategy(_message.Message):
    __slots__ = ("seed",)
    SEED_FIELD_NUMBER: _ClassVar[int]
    seed: int
    def __init__(self, seed: _Optional[int] = ...) -> None: ...

class MinimumDistanceStrategy(_message.Message):
    __slots__ = ("distance", "seed")
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    distance: float
    seed: int
    def __init__(self, distance: _Optional[float] = ..., seed: _Optional[int] = ...) -> None: ...

class TypicalityStrategy(_message.Message):
    __slots__ = ("num_neighbors",)
    NUM_NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    num_neighbors: int
    def __init__(self, num_neighbors: _Optional[int] = ...) -> None: ...

class SimilarityStrategy(_message.Message):
    __slots__ = ("images", "stored")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[_types_pb2.Image]
    stored: _containers.RepeatedCompositeFieldContainer[_dataset_service_pb2.ImageRef]
    def __init__(self, images: _Optional[_Iterable[_Union[_types_pb2.Image, _Mapping]]] = ..., stored: _Optional[_Iterable[_Union[_dataset_service_pb2.ImageRef, _Mapping]]] = ...) -> None: ...

class ClassBalance(_message.Message):
    __slots__ = ("share", "counts")
    class Share(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SHARE_UNSPECIFIED: _ClassVar[ClassBalance.Share]
        SHARE_EQUAL: _ClassVar[ClassBalance.Share]
        SHARE_PROPORTIONAL: _ClassVar[ClassBalance.Share]
    SHARE_UNSPECIFIED: ClassBalance.Share
    SHARE_EQUAL: ClassBalance.Share
    SHARE_PROPORTIONAL: ClassBalance.Share
    class CountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SHARE_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    share: ClassBalance.Share
    counts: _containers.ScalarMap[str, int]
    def __init__(self, share: _Optional[_Union[ClassBalance.Share, str]] = ..., counts: _Optional[_Mapping[str, int]] = ...) -> None: ...

class SelectSamplesResponse(_message.Message):
    __slots__ = ("opened", "progress", "samples", "end")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    opened: EmbeddingsOpened
    progress: EmbeddingsProgress
    samples: SampleBatch
    end: SelectSamplesEnd
    def __init__(self, opened: _Optional[_Union[EmbeddingsOpened, _Mapping]] = ..., progress: _Optional[_Union[EmbeddingsProgress, _Mapping]] = ..., samples: _Optional[_Union[SampleBatch, _Mapping]] = ..., end: _Optional[_Union[SelectSamplesEnd, _Mapping]] = ...) -> None: ...

class SampleBatch(_message.Message):
    __slots__ = ("samples",)
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    samples: _containers.RepeatedCompositeFieldContainer[Sample]
    def __init__(self, samples: _Optional[_Iterable[_Union[Sample, _Mapping]]] = ...) -> None: ...

class Sample(_message.Message):
    __slots__ = ("image", "score")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    image: _dataset_service_pb2.StoredImage
    score: float
    def __init__(self, image: _Optional[_Union[_dataset_service_pb2.StoredImage, _Mapping]] = ..., score: _Optional[float] = ...) -> None: ...

class SelectSamplesEnd(_message.Message):
    __slots__ = ("num_samples",)
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    num_samples: int
    def __init__(self, num_samples: _Optional[int] = ...) -> None: ...

class FindNeighborsRequest(_message.Message):
    __slots__ = ("dataset", "model", "output", "version", "metric", "num_neighbors", "images", "stored")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    NUM_NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    model: str
    output: EmbedOptions.Output
    version: int
    metric: Metric
    num_neighbors: int
    images: _containers.RepeatedCompositeFieldContainer[_types_pb2.Image]
    stored: _containers.RepeatedCompositeFieldContainer[_dataset_service_pb2.ImageRef]
    def __init__(self, dataset: _Optional[str] = ..., model: _Optional[str] = ..., output: _Optional[_Union[EmbedOptions.Output, str]] = ..., version: _Optional[int] = ..., metric: _Optional[_Union[Metric, str]] = ..., num_neighbors: _Optional[int] = ..., images: _Optional[_Iterable[_Union[_types_pb2.Image, _Mapping]]] = ..., stored: _Optional[_Iterable[_Union[_dataset_service_pb2.ImageRef, _Mapping]]] = ...) -> None: ...

class FindNeighborsResponse(_message.Message):
    __slots__ = ("opened", "progress", "neighbors", "end")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    opened: EmbeddingsOpened
    progress: EmbeddingsProgress
    neighbors: QueryNeighbors
    end: FindNeighborsEnd
    def __init__(self, opened: _Optional[_Union[EmbeddingsOpened, _Mapping]] = ..., progress: _Optional[_Union[EmbeddingsProgress, _Mapping]] = ..., neighbors: _Optional[_Union[QueryNeighbors, _Mapping]] = ..., end: _Optional[_Union[FindNeighborsEnd, _Mapping]] = ...) -> None: ...

class QueryNeighbors(_message.Message):
    __slots__ = ("query", "neighbors", "error")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    query: int
    neighbors: _containers.RepeatedCompositeFieldContainer[Neighbor]
    error: _types_pb2.ImageError
    def __init__(self, query: _Optional[int] = ..., neighbors: _Optional[_Iterable[_Union[Neighbor, _Mapping]]] = ..., error: _Optional[_Union[_types_pb2.ImageError, _Mapping]] = ...) -> None: ...

class Neighbor(_message.Message):
    __slots__ = ("image", "distance")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    image: _dataset_service_pb2.StoredImage
    distance: float
    def __init__(self, image: _Optional[_Union[_dataset_service_pb2.StoredImage, _Mapping]] = ..., distance: _Optional[float] = ...) -> None: ...

class FindNeighborsEnd(_message.Message):
    __slots__ = ("num_queries",)
    NUM_QUERIES_FIELD_NUMBER: _ClassVar[int]
    num_queries: int
    def __init__(self, num_queries: _Optional[int] = ...) -> None: ...

class FindDuplicatesRequest(_message.Message):
    __slots__ = ("dataset", "model", "output", "version", "metric", "max_distance")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    MAX_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    model: str
    output: EmbedOptions.Output
    version: int
    metric: Metric
    max_distance: float
    def __init__(self, dataset: _Optional[str] = ..., model: _Optional[str] = ..., output: _Optional[_Union[EmbedOptions.Output, str]] = ..., version: _Optional[int] = ..., metric: _Optional[_Union[Metric, str]] = ..., max_distance: _Optional[float] = ...) -> None: ...

class FindDuplicatesResponse(_message.Message):
    __slots__ = ("opened", "progress", "members", "end")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    opened: EmbeddingsOpened
    progress: EmbeddingsProgress
    members: DuplicateMembers
    end: FindDuplicatesEnd
    def __init__(self, opened: _Optional[_Union[EmbeddingsOpened, _Mapping]] = ..., progress: _Optional[_Union[EmbeddingsProgress, _Mapping]] = ..., members: _Optional[_Union[DuplicateMembers, _Mapping]] = ..., end: _Optional[_Union[FindDuplicatesEnd, _Mapping]] = ...) -> None: ...

class DuplicateMembers(_message.Message):
    __slots__ = ("group", "members")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    group: int
    members: _containers.RepeatedCompositeFieldContainer[Neighbor]
    def __init__(self, group: _Optional[int] = ..., members: _Optional[_Iterable[_Union[Neighbor, _Mapping]]] = ...) -> None: ...

class FindDuplicatesEnd(_message.Message):
    __slots__ = ("num_groups", "num_images")
    NUM_GROUPS_FIELD_NUMBER: _ClassVar[int]
    NUM_IMAGES_FIELD_NUMBER: _ClassVar[int]
    num_groups: int
    num_images: int
    def __init__(self, num_groups: _Optional[int] = ..., num_images: _Optional[int] = ...) -> None: ...
