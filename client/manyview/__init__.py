"""manyview: stream unlabelled images in, watch a model learn live, get embeddings out.

    with manyview.Client("gpu-box:50051") as client:
        dataset = client.upload("images/", dataset="clothing")
        job = client.train(dataset, method="simclr", epochs=50)
        job.wait()
        vectors = client.embed(["a.jpg", "b.jpg"], model=job).array

Names load on first use, so that `import manyview` costs next to nothing: neither gRPC, protobuf nor numpy is imported
before they are needed, and torch never is.

- `_client`: everything that a user asks for, one method each. `_jobs`: a train job as a handle.
- `_types`, `_errors`: the values and the errors that the SDK gives back. `testing`: a fake server for tests.
- `_local`, `_log_tail`: a private server as a child process, and the end of its log.
- `_convert`: protobuf messages to values. `_names`: names of resources. `_arguments`: checks of arguments.
- `_progress`: the progress bar.
- `_transport/`: calls. `_uploads/`: images in. `_results/`: what comes back. `_cli/`: the command line.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manyview._client import Client
    from manyview._errors import (
        Aborted,
        AlreadyExists,
        Cancelled,
        DataLoss,
        DeadlineExceeded,
        FailedPrecondition,
        Internal,
        InvalidArgument,
        ManyviewError,
        NotFound,
        OutOfRange,
        PermissionDenied,
        ResourceExhausted,
        TrainJobCancelled,
        TrainJobFailed,
        Unauthenticated,
        Unavailable,
        Unimplemented,
        Unknown,
        UploadChanged,
        UploadRejected,
        Violation,
    )
    from manyview._jobs import Job
    from manyview._local import local
    from manyview._results.embeddings import Embeddings
    from manyview._results.events import (
        Alert,
        CheckpointSaved,
        Event,
        History,
        Log,
        Rollback,
        Scalars,
        SnapshotAdopted,
        StateChange,
    )
    from manyview._results.preview import Preview
    from manyview._transport.channel import Deadlines, TLSOptions
    from manyview._types import (
        Backbone,
        Dataset,
        Device,
        DuplicateGroup,
        EmbedTiming,
        Failure,
        ImageError,
        LabelConflict,
        Limits,
        LogLine,
        Method,
        Methods,
        Model,
        Neighbor,
        PluginProblem,
        Progress,
        QueryNeighbors,
        RejectedImage,
        Sample,
        Selection,
        ServerInfo,
        StoredImage,
        TrainJobInfo,
        UploadReport,
    )

__version__ = "0.1.0"

_HOMES = {
    "_transport.channel": ("Deadlines", "TLSOptions"),
    "_client": ("Client",),
    "_results.embeddings": ("Embeddings",),
    "_errors": (
        "Aborted",
        "AlreadyExists",
        "Cancelled",
        "DataLoss",
        "DeadlineExceeded",
        "FailedPrecondition",
        "Internal",
        "InvalidArgument",
        "ManyviewError",
        "NotFound",
        "OutOfRange",
        "PermissionDenied",
        "ResourceExhausted",
        "TrainJobCancelled",
        "TrainJobFailed",
        "Unauthenticated",
        "Unavailable",
        "Unimplemented",
        "Unknown",
        "UploadChanged",
        "UploadRejected",
        "Violation",
    ),
    "_jobs": ("Job",),
    "_local": ("local",),
    "_results.events": (
        "Alert",
        "CheckpointSaved",
        "Event",
        "History",
        "Log",
        "Rollback",
        "Scalars",
        "SnapshotAdopted",
        "StateChange",
    ),
    "_results.preview": ("Preview",),
    "_types": (
        "Backbone",
        "Dataset",
        "Device",
        "DuplicateGroup",
        "EmbedTiming",
        "Failure",
        "ImageError",
        "LabelConflict",
        "Limits",
        "LogLine",
        "Method",
        "Methods",
        "Model",
        "Neighbor",
        "PluginProblem",
        "Progress",
        "QueryNeighbors",
        "RejectedImage",
        "Sample",
        "Selection",
        "ServerInfo",
        "StoredImage",
        "TrainJobInfo",
        "UploadReport",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022  (the entry points first)
    "Client",
    "local",
    "Job",
    "Event",
    "History",
    "Embeddings",
    "Preview",
    "Deadlines",
    "TLSOptions",
    "Aborted",
    "Alert",
    "AlreadyExists",
    "Backbone",
    "Cancelled",
    "CheckpointSaved",
    "DataLoss",
    "Dataset",
    "DeadlineExceeded",
    "Device",
    "DuplicateGroup",
    "EmbedTiming",
    "FailedPrecondition",
    "Failure",
    "ImageError",
    "Internal",
    "InvalidArgument",
    "LabelConflict",
    "Limits",
    "Log",
    "LogLine",
    "ManyviewError",
    "Method",
    "Methods",
    "Model",
    "Neighbor",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "PluginProblem",
    "Progress",
    "QueryNeighbors",
    "RejectedImage",
    "ResourceExhausted",
    "Rollback",
    "Sample",
    "Scalars",
    "Selection",
    "ServerInfo",
    "SnapshotAdopted",
    "StateChange",
    "StoredImage",
    "TrainJobCancelled",
    "TrainJobFailed",
    "TrainJobInfo",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "UploadChanged",
    "UploadRejected",
    "UploadReport",
    "Violation",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'manyview' has no attribute {name!r}")
    value = getattr(import_module(f"manyview.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
