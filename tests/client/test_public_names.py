"""The public names, and the cost of `import manyview`."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import manyview
from manyview._results.selection import PARAMETERS
from manyview.v1 import dataset_service_pb2, metrics_service_pb2, types_pb2

ERRORS = {
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
}
VALUES = {
    "Activity",
    "Backbone",
    "Dataset",
    "Device",
    "DuplicateGroup",
    "EmbedTiming",
    "Estimate",
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
    "Preprocessing",
    "Progress",
    "QueryNeighbors",
    "RejectedImage",
    "Sample",
    "Selection",
    "ServerInfo",
    "SkippedFiles",
    "StoredImage",
    "TrainJobInfo",
    "UploadReport",
}
PAYLOADS = {"Alert", "CheckpointSaved", "Log", "Rollback", "Scalars", "SnapshotAdopted", "StateChange"}
ENTRIES = {"Client", "local", "Job", "Event", "History", "Embeddings", "Preview", "Deadlines", "TLSOptions"}
WORDS = {
    "ActivityKind",
    "Balance",
    "Crop",
    "DataType",
    "EventKind",
    "HealthStatus",
    "ImageStatus",
    "Interpolation",
    "JobState",
    "LogLevel",
    "Metric",
    "Output",
    "SkipReason",
    "Strategy",
    "WeightsOrigin",
}
CLIENT = {
    "close",
    "create_dataset",
    "dataset",
    "datasets",
    "delete_dataset",
    "duplicates",
    "embed",
    "embed_dataset",
    "embed_dataset_iter",
    "embed_iter",
    "export",
    "health",
    "images",
    "job",
    "jobs",
    "methods",
    "model",
    "models",
    "neighbors",
    "plan",
    "preview",
    "read_image",
    "resolve_config",
    "select",
    "server_info",
    "sheet",
    "train",
    "upload",
}
JOB = {
    "cancel",
    "pause",
    "resume",
    "checkpoints",
    "delete",
    "export",
    "history",
    "id",
    "info",
    "logs",
    "metrics",
    "name",
    "refresh",
    "state",
    "wait",
}


def test_the_public_names_are_these() -> None:
    assert set(manyview.__all__) == ERRORS | VALUES | PAYLOADS | ENTRIES | WORDS
    assert all(getattr(manyview, name).__name__ == name for name in set(manyview.__all__) - WORDS)
    assert {name for name in vars(manyview.Client) if not name.startswith("_")} == CLIENT
    assert {name for name in vars(manyview.Job) if not name.startswith("_")} == JOB


def test_words_that_arguments_and_fields_may_be_are_literal_types() -> None:
    assert {name for name in manyview.__all__ if get_origin(getattr(manyview, name)) is Literal} == WORDS
    assert {*PARAMETERS} == {*get_args(manyview.Strategy)}
    assert {*get_args(manyview.EventKind)} == {
        name.removeprefix("KIND_").lower() for name in metrics_service_pb2.MetricsEvent.Kind.keys()[1:]
    }
    for words, enum, prefix in (
        (manyview.JobState, types_pb2.TrainJobState, "TRAIN_JOB_STATE_"),
        (manyview.LogLevel, types_pb2.Log.Level, "LEVEL_"),
        (manyview.ImageStatus, dataset_service_pb2.StoredImage.Status, "STATUS_"),
    ):
        assert {*get_args(words)} == {name.removeprefix(prefix) for name in enum.keys()[1:]}


def test_type_checkers_see_the_names_that_the_package_has() -> None:
    source = ast.parse(Path(manyview.__file__).read_text())
    (block,) = (node for node in source.body if isinstance(node, ast.If))
    imported = [alias for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert {alias.asname for alias in imported} == set(manyview.__all__)
    assert all(alias.asname == alias.name for alias in imported)


def test_every_public_name_says_what_it_is() -> None:
    named = set(manyview.__all__) - WORDS
    assert [name for name in named if not (getattr(manyview, name).__doc__ or "").strip()] == []


def test_the_client_works_where_torch_is_missing_and_loads_nothing_it_does_not_need() -> None:
    program = """
import sys
sys.modules["torch"] = sys.modules["torchvision"] = sys.modules["PIL"] = None
import manyview
assert not {"grpc", "google.protobuf", "numpy"} & set(sys.modules), "import manyview loads too much"
client = manyview.Client("localhost:1")
assert not {"numpy", "rich", "typer"} & set(sys.modules), "Client loads too much"
from manyview.testing import FakeServer
with FakeServer() as server, manyview.Client(server.target) as client:
    client.upload([b"a"], "pets")
    assert client.embed([b"a", b"b"], "backbones/resnet18").array.shape == (2, 4)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)


def test_importing_loads_little_of_the_sdk_and_nothing_that_is_not_pythons() -> None:
    """So it costs next to nothing beside gRPC and protobuf, which the first client loads."""
    program = "import sys; before = set(sys.modules); import manyview; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=50, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded <= {"manyview", *sys.stdlib_module_names}
    assert len(done.stdout.split()) < 40
