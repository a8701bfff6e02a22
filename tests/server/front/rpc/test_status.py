"""Errors on the wire: details that programs read, within what a trailer carries."""

from __future__ import annotations

import base64
from urllib.parse import quote

from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from manyview_server.errors import InvalidArgument, NotFound, Unavailable, Violation
from manyview_server.front.rpc.status import cut, public_error, stream_error, text_of, trailing_metadata


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


def test_a_violation_may_have_a_reason_for_programs() -> None:
    violations = [
        Violation(field="images[0]", description="is torn", reason="DECODE_FAILED"),
        Violation(field="count", description="is too low"),
    ]
    request = error_details_pb2.BadRequest()
    assert parsed(InvalidArgument.of(*violations)).details[-1].Unpack(request)
    assert [violation.reason for violation in request.field_violations] == ["DECODE_FAILED", ""]


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


SOFT_LIMIT_BYTES = 8192
"""The most bytes of all trailers. The library may replace larger ones."""
EMOJI, CJK = "\N{GRINNING FACE}", "\u6f22"


def trailer_bytes(error: Exception) -> int:
    """The bytes of the message and the details on the wire, percent-encoded and in base64."""
    ((key, value),) = trailing_metadata(public_error(error))
    message = quote(text_of(public_error(error)), safe="".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%"))
    return len(message) + len(key) + len(base64.b64encode(value)) + 2 * 32


def test_a_trailer_has_room_for_any_text_in_any_script() -> None:
    for text in ("x" * 5000, "%" * 5000, CJK * 5000, EMOJI * 5000, "\n" * 5000):
        violations = [Violation(field=text, description=text) for _ in range(20)]
        for error in (
            NotFound("IMAGE_NOT_FOUND", text, metadata={"image": text, "a": text, "b": text, "c": text}),
            InvalidArgument("FIELD_INVALID", text, violations=violations, metadata={"image": text}),
        ):
            assert trailer_bytes(error) < SOFT_LIMIT_BYTES - 1000
            assert stream_error(error).ByteSize() < SOFT_LIMIT_BYTES


@given(st.text(max_size=60), st.integers(8, 60))
def test_a_text_is_cut_between_characters_and_only_where_it_is_too_long(text: str, max_bytes: int) -> None:
    shown = cut(text, max_bytes)
    assert len(shown.encode()) <= max_bytes
    if len(text.encode()) <= max_bytes:
        assert shown == text
    else:
        assert shown.endswith("…")
        assert text.startswith(shown[:-1])
        assert len((shown[:-1] + text[len(shown) - 1]).encode()) > max_bytes - len("…".encode()), "as much as fits"
