"""The errors of the SDK, as one tree. A `grpc.RpcError` never leaves the SDK: it is the `__cause__` of an error here.

    ManyviewError            code, reason, message, metadata, retry_after_s, violations
    ├── one class for each canonical status code: InvalidArgument, NotFound, Unavailable, …
    │   ├── DeadlineExceeded     also a TimeoutError
    │   └── FailedPrecondition
    │       └── UploadChanged    the images differ from those that were acknowledged before
    ├── TrainJobFailed           with a reason, a message, and a hint that says what to do
    ├── TrainJobCancelled
    └── UploadRejected           images were refused, and the caller asked for an error

Branch on the class or on `reason` (UPPER_SNAKE). `message` is for people and may change.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from manyview._progress.words import number_of

if TYPE_CHECKING:
    from manyview._types.uploads import UploadReport
    from manyview.v1 import types_pb2

_DETAILS_TRAILER = "grpc-status-details-bin"


@dataclass(frozen=True)
class Violation:
    """A field of a request that was refused, and the reason in words. `reason` is a constant in UPPER_SNAKE case for
    programs, or ""."""

    field: str
    description: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class ManyviewError(Exception):
    """The base of every error that a call to a manyview server raises.

    `code` is the canonical gRPC status ("NOT_FOUND"), `reason` the server's UPPER_SNAKE reason or "", and `metadata`
    its details. `retry_after_s` is the number of seconds to wait before trying again, or None if that does not help.
    `violations` lists every field that was refused.
    """

    code = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        violations: tuple[Violation, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s
        self.violations = violations

    def __str__(self) -> str:
        reason = f"[{self.reason or self.code}]"
        lines = list(map(str, self.violations))
        if not lines or not self.message.startswith(f"{self.violations[0].field}: "):
            return "\n  ".join([f"{self.message} {reason}", *lines])
        # The message lists the violations, too, but it may have been cut.
        if len(lines) == 1:
            return f"{lines[0]} {reason}"
        return "\n  ".join([f"{number_of(len(lines), 'field is', 'fields are')} wrong {reason}", *lines])

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: the caller's own lines, without those of the SDK and of gRPC."""
        inside = (str(Path(__file__).parent), f"{os.sep}IPython{os.sep}")
        frames = [frame for frame in traceback.extract_tb(self.__traceback__) if not _is_in(frame.filename, inside)]
        return [*traceback.format_list(frames), f"{type(self).__name__}: {self}"]


class Cancelled(ManyviewError):
    """The call was cancelled."""

    code = "CANCELLED"


class Unknown(ManyviewError):
    """The server gave no usable status."""

    code = "UNKNOWN"


class InvalidArgument(ManyviewError):
    """The request is wrong, whatever the server's state is. `violations` names every wrong field."""

    code = "INVALID_ARGUMENT"


class DeadlineExceeded(ManyviewError, TimeoutError):
    """No answer came within the call's deadline."""

    code = "DEADLINE_EXCEEDED"


class NotFound(ManyviewError):
    """The data set, job, model or image does not exist."""

    code = "NOT_FOUND"


class AlreadyExists(ManyviewError):
    """The id is taken."""

    code = "ALREADY_EXISTS"


class PermissionDenied(ManyviewError):
    """The token is valid, but its role does not allow this."""

    code = "PERMISSION_DENIED"


class ResourceExhausted(ManyviewError):
    """A limit or a quota is reached, or the disk is full."""

    code = "RESOURCE_EXHAUSTED"


class FailedPrecondition(ManyviewError):
    """The server's state does not allow this now."""

    code = "FAILED_PRECONDITION"


class Aborted(ManyviewError):
    """Another call came first, such as a second stream of the same upload."""

    code = "ABORTED"


class OutOfRange(ManyviewError):
    """A sequence number is older than the oldest event, or newer than the newest. `metadata` has both, "oldest" and
    "newest"."""

    code = "OUT_OF_RANGE"


class Unimplemented(ManyviewError):
    """The server does not know this call, probably because it is older than the client."""

    code = "UNIMPLEMENTED"


class Internal(ManyviewError):
    """A fault of the server. Search its log for `metadata["error_id"]`."""

    code = "INTERNAL"


class Unavailable(ManyviewError):
    """The server cannot be reached, or is not ready."""

    code = "UNAVAILABLE"


class DataLoss(ManyviewError):
    """Stored or transferred bytes do not match their checksum."""

    code = "DATA_LOSS"


class Unauthenticated(ManyviewError):
    """The token is missing or wrong."""

    code = "UNAUTHENTICATED"


class UploadChanged(FailedPrecondition):
    """An upload cannot be resumed, because the images differ from those that were acknowledged under its id."""


class TrainJobFailed(ManyviewError):
    """A train job failed. `job` is its name, `reason` and `message` say why, and `hint` says what to do."""

    code = "FAILED_PRECONDITION"

    def __init__(self, job: str, *, reason: str, message: str, hint: str) -> None:
        super().__init__(f"{job} failed: {message}", reason=reason)
        self.job = job
        self.hint = hint

    def __str__(self) -> str:
        return f"{super().__str__()}\n  {self.hint}" if self.hint else super().__str__()


class TrainJobCancelled(ManyviewError):
    """A train job was cancelled while the caller waited for it."""

    code = "CANCELLED"

    def __init__(self, job: str) -> None:
        super().__init__(f"{job} was cancelled", reason="TRAIN_JOB_CANCELLED")
        self.job = job


class UploadRejected(ManyviewError):
    """Images of an upload were refused. `report` names each of them. The others are stored. If all were refused, a
    missing data set was not created."""

    code = "INVALID_ARGUMENT"

    def __init__(self, report: UploadReport) -> None:
        first = "; ".join(f"{image.key}: {image.error.reason} {image.error.message}" for image in report.rejected[:3])
        refused = number_of(report.num_rejected, "image was refused", "images were refused")
        super().__init__(f"{refused} ({first})", reason="IMAGES_REJECTED")
        self.report = report


_BY_CODE: dict[str, type[ManyviewError]] = {
    error.code: error
    for error in (
        Cancelled,
        Unknown,
        InvalidArgument,
        DeadlineExceeded,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        ResourceExhausted,
        FailedPrecondition,
        Aborted,
        OutOfRange,
        Unimplemented,
        Internal,
        Unavailable,
        DataLoss,
        Unauthenticated,
    )
}
_BY_REASON: dict[str, type[ManyviewError]] = {"UPLOAD_CHANGED": UploadChanged}
_CODE_NAMES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


def from_rpc_error(error: grpc.RpcError, target: str = "") -> ManyviewError:
    """Return the SDK's error for a failed call, with the `google.rpc` details of its trailer. `target` is named if
    nothing answered there."""
    status = error.code()
    code = status.name if status is not None else "UNKNOWN"
    message = error.details() or code
    trailers: Any = error.trailing_metadata() or ()
    trailer = next((value for key, value in trailers if key == _DETAILS_TRAILER), None)
    if trailer is not None:
        return _from_details(code, message, trailer)
    if code == "UNAVAILABLE" and target:
        message = f"no manyview server answered at {target}: {_cause(message)}{_port_hint(target)}"
    return _BY_CODE.get(code, Unknown)(message, code=code)


def _is_in(file: str, places: Iterable[str]) -> bool:
    return any(place in file for place in places)


def _cause(details: str) -> str:
    """Return the end of a message of gRPC, which says what happened at last."""
    last = re.sub(r" \(\d+\)$", "", details.rpartition(": ")[2])
    return last[:1].lower() + last[1:]


def _port_hint(target: str) -> str:
    return "" if ":" in target else f"; the address has no port: is it {target}:50051?"


def _from_details(code: str, message: str, trailer: bytes) -> ManyviewError:
    from google.rpc import error_details_pb2, status_pb2

    reason, metadata, retry_after_s, violations = "", {}, None, []
    info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(trailer).details:
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
        elif detail.Unpack(bad):
            violations += [Violation(one.field, one.description, one.reason) for one in bad.field_violations]
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code, Unknown)
    return kind(
        message,
        code=code,
        reason=reason,
        metadata=metadata,
        retry_after_s=retry_after_s,
        violations=tuple(violations),
    )


def from_stream_error(error: types_pb2.StreamError) -> ManyviewError:
    """Return the SDK's error for one that the server sent within a stream, before the status."""
    code = _CODE_NAMES.get(error.code, "UNKNOWN")
    kind = _BY_REASON.get(error.reason) or _BY_CODE.get(code, Unknown)
    return kind(
        error.message,
        code=code,
        reason=error.reason,
        metadata=dict(error.metadata),
        retry_after_s=error.retry_after_ms / 1000 if error.retry_after_ms else None,
    )


def is_transient(error: ManyviewError) -> bool:
    """Return whether the same call may succeed later: the server is unavailable, or exhausted and says when to
    retry."""
    return isinstance(error, Unavailable) or (isinstance(error, ResourceExhausted) and error.retry_after_s is not None)


def may_reopen(error: ManyviewError) -> bool:
    """Return whether a stream that ended with this error may be opened again. Streams have no deadline of their own.
    One that ends with DEADLINE_EXCEEDED and no reason from the server met the limit of a proxy on the way."""
    return is_transient(error) or (isinstance(error, DeadlineExceeded) and not error.reason)
