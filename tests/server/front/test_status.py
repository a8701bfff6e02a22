"""Errors on the wire: details that programs read, within what a trailer carries."""

from __future__ import annotations

from google.rpc import error_details_pb2, status_pb2

from manyview_server.errors import InvalidArgument, Unavailable, Violation
from manyview_server.front.status import public_error, stream_error, text_of, trailing_metadata


def parsed(error: Exception) -> status_pb2.Status:
    ((key, value),) = trailing_metadata(public_error(error))
    assert key == "grpc-status-details-bin"
    return status_pb2.Status.FromString(value)


def test_info_comes_first_and_retry_only_where_waiting_helps() -> None:
    status = parsed(Unavailable("DRAINING", "later", retry_after_s=2.5, metadata={"a": "b"}))
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, info.domain, dict(info.metadata)) == ("DRAINING", "manyview", {"a": "b"})
    assert retry.retry_delay.ToMilliseconds() == 2500
    assert len(parsed(Unavailable("X", "never")).details) == 1


def test_more_violations_than_fit_are_counted() -> None:
    violations = [Violation(field=f"config.field_{i}", description="x" * 300) for i in range(200)]
    error = InvalidArgument.of(*violations)
    ((_, value),) = trailing_metadata(error)
    assert len(value) + len(text_of(error).encode()) < 6000
    request = error_details_pb2.BadRequest()
    assert status_pb2.Status.FromString(value).details[-1].Unpack(request)
    shown = len(request.field_violations) - 1
    assert shown > 5
    assert request.field_violations[-1].description == f"and {200 - shown} more violations"


def test_an_error_in_the_stream_says_the_same() -> None:
    message = stream_error(Unavailable("DRAINING", "later", retry_after_s=2.5, metadata={"a": "b"}))
    assert (message.code, message.reason, message.message, message.retry_after_ms) == (14, "DRAINING", "later", 2500)
    assert dict(message.metadata) == {"a": "b"}


def test_the_text_of_what_was_not_expected_stays_here() -> None:
    first, second = public_error(KeyError("secret")), public_error(KeyError("secret"))
    assert "secret" not in first.message
    assert first.metadata["error_id"] != second.metadata["error_id"]
