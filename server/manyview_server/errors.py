"""What a call can fail with, each with its status as data; one interceptor maps them to the wire.

ServiceError
├── InvalidArgument         a field is out of range: `violations` names every one
├── NotFound                no such resource
├── AlreadyExists           the name is taken
├── FailedPrecondition      the state does not allow it
├── Aborted                 lost a race or broke a protocol's order: start again from what the metadata says
├── OutOfRange              a cursor outside of what is held
├── ResourceExhausted       a limit; `retry_after_s` where waiting helps
├── Unavailable             draining or restarting; `retry_after_s`
├── Unauthenticated         no token, or a wrong one
├── DeadlineExceeded        the caller's time was over before the work began
└── DataLoss                stored bytes fail their checksum
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One field that is wrong: its path, and a sentence with the value and what is allowed."""

    field: str
    description: str


class ServiceError(Exception):
    """An error that a caller may see. `code` is the canonical gRPC status name, `reason` what programs branch on."""

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
        """All violations of one request in one error, reason FIELD_INVALID."""
        text = "; ".join(f"{v.field}: {v.description}" for v in violations)
        return cls("FIELD_INVALID", text, violations=violations)


class NotFound(ServiceError):
    """No such resource."""

    code = "NOT_FOUND"


class AlreadyExists(ServiceError):
    """The name is taken, or a request id was used for another request."""

    code = "ALREADY_EXISTS"


class FailedPrecondition(ServiceError):
    """The resource is in a state that does not allow this."""

    code = "FAILED_PRECONDITION"


class Aborted(ServiceError):
    """A lost race or a broken order."""

    code = "ABORTED"


class OutOfRange(ServiceError):
    """A cursor outside of what is held."""

    code = "OUT_OF_RANGE"


class ResourceExhausted(ServiceError):
    """A limit was reached."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(ServiceError):
    """Not now: draining, restarting."""

    code = "UNAVAILABLE"


class Unauthenticated(ServiceError):
    """No token, or a wrong one."""

    code = "UNAUTHENTICATED"


class DeadlineExceeded(ServiceError):
    """The caller's time was over before the work began."""

    code = "DEADLINE_EXCEEDED"


class DataLoss(ServiceError):
    """Stored bytes fail their checksum."""

    code = "DATA_LOSS"


def of_code(code: str) -> type[ServiceError]:
    """The class of a canonical status name."""
    return next((kind for kind in ServiceError.__subclasses__() if kind.code == code), ServiceError)
