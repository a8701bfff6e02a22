from google.protobuf import timestamp_pb2 as _timestamp_pb2
from manyview.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Dataset(_message.Message):
    __slots__ = ("name", "uid", "create_time", "num_images", "num_bytes", "num_labels", "num_labelled", "num_rejected", "num_unreadable")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    NUM_IMAGES_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    NUM_LABELS_FIELD_NUMBER: _ClassVar[int]
    NUM_LABELLED_FIELD_NUMBER: _ClassVar[int]
    NUM_REJECTED_FIELD_NUMBER: _ClassVar[int]
    NUM_UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    create_time: _timestamp_pb2.Timestamp
    num_images: int
    num_bytes: int
    num_labels: int
    num_labelled: int
    num_rejected: int
    num_unreadable: int
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., num_images: _Optional[int] = ..., num_bytes: _Optional[int] = ..., num_labels: _Optional[int] = ..., num_labelled: _Optional[int] = ..., num_rejected: _Optional[int] = ..., num_unreadable: _Optional[int] = ...) -> None: ...

class CreateDatasetRequest(_message.Message):
    __slots__ = ("dataset_id", "request_id")
    DATASET_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    dataset_id: str
    request_id: str
    def __init__(self, dataset_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class CreateDatasetResponse(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: Dataset
    def __init__(self, dataset: _Optional[_Union[Dataset, _Mapping]] = ...) -> None: ...

class GetDatasetRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetDatasetResponse(_message.Message):
    __slots__ = ("dataset",)
    DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: Dataset
    def __init__(self, dataset: _Optional[_Union[Dataset, _Mapping]] = ...) -> None: ...

class ListDatasetsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDatasetsResponse(_message.Message):
    __slots__ = ("datasets", "next_page_token")
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[Dataset]
    next_page_token: str
    def __init__(self, datasets: _Optional[_Iterable[_Union[Dataset, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteDatasetRequest(_message.Message):
    __slots__ = ("name", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteDatasetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UploadImagesRequest(_message.Message):
    __slots__ = ("header", "batch", "finish")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    header: UploadHeader
    batch: _types_pb2.ImageBatch
    finish: UploadFinish
    def __init__(self, header: _Optional[_Union[UploadHeader, _Mapping]] = ..., batch: _Optional[_Union[_types_pb2.ImageBatch, _Mapping]] = ..., finish: _Optional[_Union[UploadFinish, _Mapping]] = ...) -> None: ...

class UploadHeader(_message.Message):
    __slots__ = ("dataset", "upload_id", "resume_digest", "create_dataset")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    RESUME_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CREATE_DATASET_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    upload_id: str
    resume_digest: bytes
    create_dataset: bool
    def __init__(self, dataset: _Optional[str] = ..., upload_id: _Optional[str] = ..., resume_digest: _Optional[bytes] = ..., create_dataset: bool = ...) -> None: ...

class UploadFinish(_message.Message):
    __slots__ = ("num_images",)
    NUM_IMAGES_FIELD_NUMBER: _ClassVar[int]
    num_images: int
    def __init__(self, num_images: _Optional[int] = ...) -> None: ...

class UploadImagesResponse(_message.Message):
    __slots__ = ("opened", "ack", "finished", "error")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    opened: UploadOpened
    ack: BatchAck
    finished: UploadFinished
    error: _types_pb2.StreamError
    def __init__(self, opened: _Optional[_Union[UploadOpened, _Mapping]] = ..., ack: _Optional[_Union[BatchAck, _Mapping]] = ..., finished: _Optional[_Union[UploadFinished, _Mapping]] = ..., error: _Optional[_Union[_types_pb2.StreamError, _Mapping]] = ...) -> None: ...

class UploadOpened(_message.Message):
    __slots__ = ("upload", "max_unacked_batches", "max_unacked_bytes")
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    MAX_UNACKED_BATCHES_FIELD_NUMBER: _ClassVar[int]
    MAX_UNACKED_BYTES_FIELD_NUMBER: _ClassVar[int]
    upload: Upload
    max_unacked_batches: int
    max_unacked_bytes: int
    def __init__(self, upload: _Optional[_Union[Upload, _Mapping]] = ..., max_unacked_batches: _Optional[int] = ..., max_unacked_bytes: _Optional[int] = ...) -> None: ...

class BatchAck(_message.Message):
    __slots__ = ("number", "results")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    number: int
    results: _containers.RepeatedCompositeFieldContainer[ImageResult]
    def __init__(self, number: _Optional[int] = ..., results: _Optional[_Iterable[_Union[ImageResult, _Mapping]]] = ...) -> None: ...

class ImageResult(_message.Message):
    __slots__ = ("outcome", "image_id", "first_key", "first_label", "label_differs", "error")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[ImageResult.Outcome]
        OUTCOME_STORED: _ClassVar[ImageResult.Outcome]
        OUTCOME_DUPLICATE: _ClassVar[ImageResult.Outcome]
        OUTCOME_REJECTED: _ClassVar[ImageResult.Outcome]
    OUTCOME_UNSPECIFIED: ImageResult.Outcome
    OUTCOME_STORED: ImageResult.Outcome
    OUTCOME_DUPLICATE: ImageResult.Outcome
    OUTCOME_REJECTED: ImageResult.Outcome
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_KEY_FIELD_NUMBER: _ClassVar[int]
    FIRST_LABEL_FIELD_NUMBER: _ClassVar[int]
    LABEL_DIFFERS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    outcome: ImageResult.Outcome
    image_id: str
    first_key: str
    first_label: str
    label_differs: bool
    error: _types_pb2.ImageError
    def __init__(self, outcome: _Optional[_Union[ImageResult.Outcome, str]] = ..., image_id: _Optional[str] = ..., first_key: _Optional[str] = ..., first_label: _Optional[str] = ..., label_differs: bool = ..., error: _Optional[_Union[_types_pb2.ImageError, _Mapping]] = ...) -> None: ...

class UploadFinished(_message.Message):
    __slots__ = ("upload", "dataset")
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    upload: Upload
    dataset: Dataset
    def __init__(self, upload: _Optional[_Union[Upload, _Mapping]] = ..., dataset: _Optional[_Union[Dataset, _Mapping]] = ...) -> None: ...

class Upload(_message.Message):
    __slots__ = ("dataset", "upload_id", "committed_number", "num_images", "num_stored", "num_duplicates", "num_rejected", "finished", "digest")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_NUMBER_FIELD_NUMBER: _ClassVar[int]
    NUM_IMAGES_FIELD_NUMBER: _ClassVar[int]
    NUM_STORED_FIELD_NUMBER: _ClassVar[int]
    NUM_DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    NUM_REJECTED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    upload_id: str
    committed_number: int
    num_images: int
    num_stored: int
    num_duplicates: int
    num_rejected: int
    finished: bool
    digest: bytes
    def __init__(self, dataset: _Optional[str] = ..., upload_id: _Optional[str] = ..., committed_number: _Optional[int] = ..., num_images: _Optional[int] = ..., num_stored: _Optional[int] = ..., num_duplicates: _Optional[int] = ..., num_rejected: _Optional[int] = ..., finished: bool = ..., digest: _Optional[bytes] = ...) -> None: ...

class GetUploadRequest(_message.Message):
    __slots__ = ("dataset", "upload_id")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_ID_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    upload_id: str
    def __init__(self, dataset: _Optional[str] = ..., upload_id: _Optional[str] = ...) -> None: ...

class GetUploadResponse(_message.Message):
    __slots__ = ("upload",)
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    upload: Upload
    def __init__(self, upload: _Optional[_Union[Upload, _Mapping]] = ...) -> None: ...

class StoredImage(_message.Message):
    __slots__ = ("image_id", "key", "label", "status", "error", "num_bytes", "width", "height")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATUS_UNSPECIFIED: _ClassVar[StoredImage.Status]
        STATUS_STORED: _ClassVar[StoredImage.Status]
        STATUS_REJECTED: _ClassVar[StoredImage.Status]
        STATUS_UNREADABLE: _ClassVar[StoredImage.Status]
    STATUS_UNSPECIFIED: StoredImage.Status
    STATUS_STORED: StoredImage.Status
    STATUS_REJECTED: StoredImage.Status
    STATUS_UNREADABLE: StoredImage.Status
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    image_id: str
    key: str
    label: str
    status: StoredImage.Status
    error: _types_pb2.ImageError
    num_bytes: int
    width: int
    height: int
    def __init__(self, image_id: _Optional[str] = ..., key: _Optional[str] = ..., label: _Optional[str] = ..., status: _Optional[_Union[StoredImage.Status, str]] = ..., error: _Optional[_Union[_types_pb2.ImageError, _Mapping]] = ..., num_bytes: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class ListImagesRequest(_message.Message):
    __slots__ = ("dataset", "page_size", "page_token", "statuses")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    page_size: int
    page_token: str
    statuses: _containers.RepeatedScalarFieldContainer[StoredImage.Status]
    def __init__(self, dataset: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., statuses: _Optional[_Iterable[_Union[StoredImage.Status, str]]] = ...) -> None: ...

class ListImagesResponse(_message.Message):
    __slots__ = ("images", "next_page_token")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[StoredImage]
    next_page_token: str
    def __init__(self, images: _Optional[_Iterable[_Union[StoredImage, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ImageRef(_message.Message):
    __slots__ = ("image_id", "key")
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    image_id: str
    key: str
    def __init__(self, image_id: _Optional[str] = ..., key: _Optional[str] = ...) -> None: ...

class GetImageRequest(_message.Message):
    __slots__ = ("dataset", "image")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    image: ImageRef
    def __init__(self, dataset: _Optional[str] = ..., image: _Optional[_Union[ImageRef, _Mapping]] = ...) -> None: ...

class GetImageResponse(_message.Message):
    __slots__ = ("image", "data")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    image: StoredImage
    data: bytes
    def __init__(self, image: _Optional[_Union[StoredImage, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...
