"""Errors as the wire has them: a canonical code, a short text, and google.rpc details that programs branch on.

Whatever is no `ServiceError` becomes INTERNAL with an opaque id; its text, which may hold paths or tokens, goes to the
log alone.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as ProtoMessage
from google.rpc import error_details_pb2, status_pb2

from manyview.v1 import types_pb2
from manyview_server.errors import ServiceError

DOMAIN = "manyview"
DETAILS_KEY = "grpc-status-details-bin"
# Trailers over 8 KiB may be replaced by the library, the real code with them; the text travels twice in them.
MAX_TEXT_CHARACTERS = 512
MAX_DETAILS_BYTES = 4096

log = logging.getLogger(__name__)


def public_error(error: Exception) -> ServiceError:
    """The error that the caller may see: itself, or INTERNAL with an id under which the log has the story."""
    if isinstance(error, ServiceError):
        return error
    error_id = secrets.token_hex(6)
    log.error("internal error %s", error_id, exc_info=error)
    text = f"internal error {error_id}; the server's log has the details"
    return ServiceError("INTERNAL", text, metadata={"error_id": error_id})


def status_code(error: ServiceError) -> grpc.StatusCode:
    """The canonical code."""
    return grpc.StatusCode[error.code]


def text_of(error: ServiceError) -> str:
    """The message, cut to what fits a trailer."""
    text = error.message
    return text if len(text) <= MAX_TEXT_CHARACTERS else text[: MAX_TEXT_CHARACTERS - 1] + "…"


def trailing_metadata(error: ServiceError) -> tuple[tuple[str, bytes], ...]:
    """The trailer that carries google.rpc.Status with ErrorInfo and, where they apply, BadRequest and RetryInfo."""
    status = status_pb2.Status(code=status_code(error).value[0], message=text_of(error))
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=_short(error.metadata))
    _pack(status, info)
    if error.retry_after_s > 0:
        _pack(status, error_details_pb2.RetryInfo(retry_delay=_duration(error.retry_after_s)))
    if error.violations:
        _pack(status, _bad_request(error, MAX_DETAILS_BYTES - status.ByteSize()))
    return ((DETAILS_KEY, status.SerializeToString()),)


def stream_error(error: ServiceError) -> types_pb2.StreamError:
    """The same error as a message of a bidirectional stream; the violations are in its text."""
    return types_pb2.StreamError(
        code=status_code(error).value[0],
        message=error.message[:MAX_DETAILS_BYTES],
        reason=error.reason,
        metadata=_short(error.metadata),
        retry_after_ms=round(error.retry_after_s * 1000),
    )


def _bad_request(error: ServiceError, room_bytes: int) -> error_details_pb2.BadRequest:
    """All violations; where they do not fit a trailer, as many as do and a last one that counts the rest."""
    detail = error_details_pb2.BadRequest()
    for index, violation in enumerate(error.violations):
        description = violation.description[:MAX_TEXT_CHARACTERS]
        detail.field_violations.add(field=violation.field[:MAX_TEXT_CHARACTERS], description=description)
        if detail.ByteSize() > room_bytes:
            del detail.field_violations[-1]
            rest = len(error.violations) - index
            detail.field_violations.add(field="", description=f"and {rest} more violations")
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
    return {key: value[:MAX_TEXT_CHARACTERS] for key, value in metadata.items()}
