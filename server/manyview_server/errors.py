"""The errors that a call can fail with. Each carries its gRPC status as data, and one interceptor maps it to the wire.

ServiceError
├── InvalidArgument         a field is out of range: `violations` names every one
├── NotFound                the resource does not exist
├── AlreadyExists           the name is taken
├── FailedPrecondition      the state of the resource does not allow the call
├── Aborted                 the caller lost a race or broke the order of a protocol; the metadata says where to restart
├── OutOfRange              a cursor is outside of the events that are kept
├── ResourceExhausted       a limit is reached; `retry_after_s` is set if waiting helps
├── Unavailable             the server is draining or restarting a worker; `retry_after_s` says when to try again
├── Unauthenticated         the call has no token, or a wrong one
├── DeadlineExceeded        the caller's deadline passed before the work started
└── DataLoss                stored bytes do not match their checksum
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from manyview_server.configuration.violations import Violation as Violation


class ServiceError(Exception):
    """An error that a caller may see. `code` is the canonical name of the gRPC status. Programs branch on `reason`."""

    code = "INTERNAL"

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s


class InvalidArgument(ServiceError):
    """A field is missing, malformed or out of range."""

    code = "INVALID_ARGUMENT"

    @classmethod
    def of(cls, *violations: Violation) -> InvalidArgument:
        """Return one error with all violations of a request. Its reason is FIELD_INVALID."""
        text = "; ".join(f"{v.field}: {v.description}" for v in violations)
        return cls("FIELD_INVALID", text, violations=violations)


class NotFound(ServiceError):
    """The resource does not exist."""

    code = "NOT_FOUND"


class AlreadyExists(ServiceError):
    """The name is taken, or the request id was used for another request."""

    code = "ALREADY_EXISTS"


class FailedPrecondition(ServiceError):
    """The resource is in a state that does not allow this."""

    code = "FAILED_PRECONDITION"


class Aborted(ServiceError):
    """The caller lost a race or broke the order of a protocol."""

    code = "ABORTED"


class OutOfRange(ServiceError):
    """A cursor is outside of the events that are kept."""

    code = "OUT_OF_RANGE"


class ResourceExhausted(ServiceError):
    """A limit is reached."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(ServiceError):
    """The server is draining or restarting a worker."""

    code = "UNAVAILABLE"


class Unauthenticated(ServiceError):
    """The call has no token, or a wrong one."""

    code = "UNAUTHENTICATED"


class DeadlineExceeded(ServiceError):
    """The caller's deadline passed before the work started."""

    code = "DEADLINE_EXCEEDED"


class DataLoss(ServiceError):
    """Stored bytes do not match their checksum."""

    code = "DATA_LOSS"


def error_class(code: str) -> type[ServiceError]:
    """Return the class of errors with this canonical status name."""
    return next((kind for kind in ServiceError.__subclasses__() if kind.code == code), ServiceError)
