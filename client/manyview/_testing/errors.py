"""The errors of `manyview.testing.FakeServer`, with details as a real server sends them."""

from __future__ import annotations

from collections.abc import Iterable

from manyview._errors import Violation


def status_details(
    code: str,
    message: str,
    reason: str,
    metadata: dict[str, str],
    retry_after_s: float | None,
    violations: Iterable[Violation],
) -> bytes:
    """Return a serialized google.rpc.Status with these details, or no bytes if there are no details."""
    import grpc
    from google.rpc import error_details_pb2, status_pb2

    status = status_pb2.Status(code=grpc.StatusCode[code].value[0], message=message)
    if reason:
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="manyview", metadata=metadata))
    if retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(retry_after_s * 1e9))
        status.details.add().Pack(retry)
    bad = error_details_pb2.BadRequest()
    for one in violations:
        bad.field_violations.add(field=one.field, description=one.description, reason=one.reason)
    if bad.field_violations:
        status.details.add().Pack(bad)
    return status.SerializeToString() if status.details else b""


class Refused(Exception):
    """The fake server refuses a call, with this status."""

    def __init__(self, code: str, reason: str, message: str, metadata: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.metadata = code, reason, message, metadata or {}

    def details(self) -> bytes:
        return status_details(self.code, self.message, self.reason, self.metadata, None, ())
