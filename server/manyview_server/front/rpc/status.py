"""Errors on the wire: a canonical code, a short text, and the google.rpc details that programs branch on.

An exception that is not a `ServiceError` becomes INTERNAL with an opaque id. Its text may hold paths or tokens, so only
the log gets it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as ProtoMessage
from google.rpc import error_details_pb2, status_pb2

from manyview.v1 import types_pb2
from manyview_server.counted_noun import number_of
from manyview_server.errors import ServiceError
from manyview_server.system import open_files

DOMAIN = "manyview"
ELLIPSIS = "…"
DETAILS_KEY = "grpc-status-details-bin"
# The library may replace trailers of more than 8 KiB, together with the real code. The trailers hold the text twice: as
# `grpc-message`, where a byte that is not printable ASCII takes three, and in the details, where three bytes take four.
MAX_MESSAGE_BYTES = 1024
MAX_DETAILS_BYTES = 4096
# Limits one text of the details: the path or the description of a violation, or a value of the metadata.
MAX_FIELD_BYTES = 512
MAX_METADATA_BYTES = 1536
# Errors in a stream are messages, not trailers.
MAX_STREAM_TEXT_BYTES = 4096

log = logging.getLogger(__name__)


def public_error(error: Exception) -> ServiceError:
    """Return the error that the caller may see: `error`, TOO_MANY_OPEN_FILES, or INTERNAL with an id for the log."""
    if isinstance(error, ServiceError):
        return error
    if open_files.are_lacking(error):
        return open_files.too_many(error)
    error_id = secrets.token_hex(6)
    log.error("internal error %s", error_id, exc_info=error)
    text = f"internal error {error_id}; the server's log has the details"
    return ServiceError("INTERNAL", text, metadata={"error_id": error_id})


def status_code(error: ServiceError) -> grpc.StatusCode:
    """Return the canonical code of an error."""
    return grpc.StatusCode[error.code]


def text_of(error: ServiceError) -> str:
    """Return the message, cut to what a trailer can carry."""
    return cut(error.message, MAX_MESSAGE_BYTES, _message_bytes)


def cut(text: str, max_bytes: int, size: Callable[[str], int] = lambda text: len(text.encode())) -> str:
    """Return the text, or as many whole characters of it as fit into `max_bytes` together with the dots at the end.

    `size` returns how many bytes a text takes. A character must take the same number wherever it stands.
    """
    if size(text[: max_bytes + 1]) <= max_bytes:
        return text
    room = max_bytes - size(ELLIPSIS)
    for end, character in enumerate(text):
        room -= size(character)
        if room < 0:
            return text[:end] + ELLIPSIS
    raise AssertionError("the text is longer than the room for it")


def _message_bytes(text: str) -> int:
    """Return the number of bytes of a text in `grpc-message`, which is percent-encoded."""
    return sum(1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3 for byte in text.encode())


def trailing_metadata(error: ServiceError) -> tuple[tuple[str, bytes], ...]:
    """Return the trailer with google.rpc.Status. Its details are ErrorInfo and, if they apply, RetryInfo and
    BadRequest."""
    status = status_pb2.Status(code=status_code(error).value[0], message=text_of(error))
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=_short(error.metadata))
    _pack(status, info)
    if error.retry_after_s > 0:
        _pack(status, error_details_pb2.RetryInfo(retry_delay=_duration(error.retry_after_s)))
    if error.violations:
        _pack(status, _bad_request(error, MAX_DETAILS_BYTES - status.ByteSize()))
    return ((DETAILS_KEY, status.SerializeToString()),)


def stream_error(error: ServiceError) -> types_pb2.StreamError:
    """Return the error as a message of a bidirectional stream. Its text names the violations."""
    return types_pb2.StreamError(
        code=status_code(error).value[0],
        message=cut(error.message, MAX_STREAM_TEXT_BYTES),
        reason=error.reason,
        metadata=_short(error.metadata),
        retry_after_ms=round(error.retry_after_s * 1000),
    )


def _bad_request(error: ServiceError, room_bytes: int) -> error_details_pb2.BadRequest:
    """Return all violations, or as many as fit and a last one that counts the others."""
    detail = error_details_pb2.BadRequest()
    for index, violation in enumerate(error.violations):
        field, description = (cut(text, MAX_FIELD_BYTES) for text in (violation.field, violation.description))
        detail.field_violations.add(field=field, description=description, reason=violation.reason)
        if detail.ByteSize() > room_bytes:
            del detail.field_violations[-1]
            rest = len(error.violations) - index
            detail.field_violations.add(field="", description=f"and {number_of(rest, 'more violation')}")
            break
    return detail


def _pack(status: status_pb2.Status, detail: ProtoMessage) -> None:
    packed = PackedAny()
    packed.Pack(detail)
    status.details.append(packed)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(round(seconds * 1000))
    return duration


def _short(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return as much of the metadata as fits, in its order. Our keys are short, but a value may quote a caller."""
    short: dict[str, str] = {}
    room = MAX_METADATA_BYTES
    for key, value in metadata.items():
        short[key] = cut(value, MAX_FIELD_BYTES)
        room -= len(key) + len(short[key].encode())
        if room < 0:
            del short[key]
            break
    return short
