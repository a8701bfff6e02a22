"""manyview: stream unlabelled images in, watch a model learn live, get embeddings out.

    with manyview.Client("gpu-box:50051") as client:
        dataset = client.upload("images/", dataset="clothing")
        job = client.train(dataset, method="simclr", epochs=50)
        job.wait()
        vectors = client.embed(["a.jpg", "b.jpg"], model=job).array

Names load on first use, so `import manyview` costs next to nothing: gRPC, protobuf and numpy are imported when they are
needed, and torch never is.

- `_client`: one method for each thing that a user can ask for. `_jobs`: a train job as a handle.
  `_job_line`: the progress of a job whose end is awaited.
- `_types/`, `_errors`: the values and the errors that the SDK returns and raises. `testing`: a fake server for tests.
- `_local`, `_stderr_tail`: a private server as a child process, and the end of its log.
- `_arguments`: checks of arguments. `_names`: names of resources. `_requests`: arguments as fields of messages.
- `_convert`: messages as values. `_progress/`: what a call is doing while its caller waits.
- `_transport/`: calls. `_uploads/`: images on their way to the server. `_results/`: answers. `_cli/`: the command line.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manyview._client import Client as Client
    from manyview._errors import Aborted as Aborted
    from manyview._errors import AlreadyExists as AlreadyExists
    from manyview._errors import Cancelled as Cancelled
    from manyview._errors import DataLoss as DataLoss
    from manyview._errors import DeadlineExceeded as DeadlineExceeded
    from manyview._errors import FailedPrecondition as FailedPrecondition
    from manyview._errors import Internal as Internal
    from manyview._errors import InvalidArgument as InvalidArgument
    from manyview._errors import ManyviewError as ManyviewError
    from manyview._errors import NotFound as NotFound
    from manyview._errors import OutOfRange as OutOfRange
    from manyview._errors import PermissionDenied as PermissionDenied
    from manyview._errors import ResourceExhausted as ResourceExhausted
    from manyview._errors import TrainJobCancelled as TrainJobCancelled
    from manyview._errors import TrainJobFailed as TrainJobFailed
    from manyview._errors import Unauthenticated as Unauthenticated
    from manyview._errors import Unavailable as Unavailable
    from manyview._errors import Unimplemented as Unimplemented
    from manyview._errors import Unknown as Unknown
    from manyview._errors import UploadChanged as UploadChanged
    from manyview._errors import UploadRejected as UploadRejected
    from manyview._errors import Violation as Violation
    from manyview._jobs import Job as Job
    from manyview._local import local as local
    from manyview._progress.activity import Activity as Activity
    from manyview._progress.activity import ActivityKind as ActivityKind
    from manyview._results.embeddings import Embeddings as Embeddings
    from manyview._results.events import Alert as Alert
    from manyview._results.events import CheckpointSaved as CheckpointSaved
    from manyview._results.events import Event as Event
    from manyview._results.events import Log as Log
    from manyview._results.events import Rollback as Rollback
    from manyview._results.events import Scalars as Scalars
    from manyview._results.events import SnapshotAdopted as SnapshotAdopted
    from manyview._results.events import StateChange as StateChange
    from manyview._results.history import History as History
    from manyview._results.preview import Preview as Preview
    from manyview._transport.channel import Deadlines as Deadlines
    from manyview._transport.channel import TLSOptions as TLSOptions
    from manyview._types.datasets import Dataset as Dataset
    from manyview._types.images import ImageError as ImageError
    from manyview._types.images import StoredImage as StoredImage
    from manyview._types.jobs import Estimate as Estimate
    from manyview._types.jobs import Failure as Failure
    from manyview._types.jobs import LogLine as LogLine
    from manyview._types.jobs import Progress as Progress
    from manyview._types.jobs import TrainJobInfo as TrainJobInfo
    from manyview._types.models import Backbone as Backbone
    from manyview._types.models import Method as Method
    from manyview._types.models import Methods as Methods
    from manyview._types.models import Model as Model
    from manyview._types.models import PluginProblem as PluginProblem
    from manyview._types.models import Preprocessing as Preprocessing
    from manyview._types.neighbors import DuplicateGroup as DuplicateGroup
    from manyview._types.neighbors import Neighbor as Neighbor
    from manyview._types.neighbors import QueryNeighbors as QueryNeighbors
    from manyview._types.selections import Sample as Sample
    from manyview._types.selections import Selection as Selection
    from manyview._types.server import Device as Device
    from manyview._types.server import EmbedTiming as EmbedTiming
    from manyview._types.server import Limits as Limits
    from manyview._types.server import ServerInfo as ServerInfo
    from manyview._types.uploads import LabelConflict as LabelConflict
    from manyview._types.uploads import RejectedImage as RejectedImage
    from manyview._types.uploads import SkippedFiles as SkippedFiles
    from manyview._types.uploads import UploadReport as UploadReport
    from manyview._types.words import Balance as Balance
    from manyview._types.words import Crop as Crop
    from manyview._types.words import DataType as DataType
    from manyview._types.words import EventKind as EventKind
    from manyview._types.words import HealthStatus as HealthStatus
    from manyview._types.words import ImageStatus as ImageStatus
    from manyview._types.words import Interpolation as Interpolation
    from manyview._types.words import JobState as JobState
    from manyview._types.words import LogLevel as LogLevel
    from manyview._types.words import Metric as Metric
    from manyview._types.words import Output as Output
    from manyview._types.words import SkipReason as SkipReason
    from manyview._types.words import Strategy as Strategy
    from manyview._types.words import WeightsOrigin as WeightsOrigin

__version__ = "0.1.0"

_NAMES = {
    "_client": "Client",
    "_local": "local",
    "_jobs": "Job",
    "_progress.activity": "Activity ActivityKind",
    "_results.events": "Event Alert CheckpointSaved Log Rollback Scalars SnapshotAdopted StateChange",
    "_results.history": "History",
    "_results.embeddings": "Embeddings",
    "_results.preview": "Preview",
    "_transport.channel": "Deadlines TLSOptions",
    "_errors": (
        "Aborted AlreadyExists Cancelled DataLoss DeadlineExceeded FailedPrecondition Internal "
        "InvalidArgument ManyviewError NotFound OutOfRange PermissionDenied ResourceExhausted "
        "TrainJobCancelled TrainJobFailed Unauthenticated Unavailable Unimplemented Unknown UploadChanged "
        "UploadRejected Violation"
    ),
    "_types.datasets": "Dataset",
    "_types.images": "ImageError StoredImage",
    "_types.jobs": "Estimate Failure LogLine Progress TrainJobInfo",
    "_types.models": "Backbone Method Methods Model PluginProblem Preprocessing",
    "_types.neighbors": "DuplicateGroup Neighbor QueryNeighbors",
    "_types.selections": "Sample Selection",
    "_types.server": "Device EmbedTiming Limits ServerInfo",
    "_types.uploads": "LabelConflict RejectedImage SkippedFiles UploadReport",
    "_types.words": (
        "Balance Crop DataType EventKind HealthStatus ImageStatus Interpolation JobState LogLevel Metric Output "
        "SkipReason Strategy WeightsOrigin"
    ),
}
"""The public names by the module that defines them. The imports above repeat them for type checkers."""
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'manyview' has no attribute {name!r}")
    value = getattr(import_module(f"manyview.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
