"""The connection to a server: its options and credentials, and the rules for every call.

Each unary call has a deadline and is repeated if the server was unavailable. That is safe, because a call either only
reads or carries a `request_id` that the server recognises. A stream has a limit on silence instead of a deadline, and
its caller resumes it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from manyview import __version__
from manyview._errors import Cancelled, DeadlineExceeded, ManyviewError, Unavailable, from_rpc_error, is_transient
from manyview._transport.backoff import Backoff
from manyview._transport.deadline import Deadline
from manyview._transport.stream import Stream
from manyview._types.words import HealthStatus

Q = TypeVar("Q", bound=Message)
QB = TypeVar("QB", bound=Message | bytes)
R = TypeVar("R", bound=Message)

_LOG = logging.getLogger("manyview")
_HEALTH: tuple[HealthStatus, ...] = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
# The largest limit that a server may have. The server states its own limit, which is lower by default.
_MAX_MESSAGE_BYTES = 512 * 1024 * 1024
# A server that has never answered is asked this often, because its address may be wrong. A server that has answered is
# asked until the deadline.
_MAX_ATTEMPTS = 5
_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    # A dead connection is noticed within 40 s. A stream counts as idle after 45 s, and would be opened again on the
    # same dead connection. The server accepts a ping every 10 s. Neither side sends pings that probe the bandwidth,
    # because on a narrow path their answers come too late.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 20),
    # The default of 20 s and more is longer than a restart of the server.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Otherwise all channels of a process share one connection, and with it the back-off of another client.
    ("grpc.use_local_subchannel_pool", 1),
    # The library's own retries hide attempts and cannot resend a stream.
    ("grpc.enable_retries", 0),
    ("grpc.primary_user_agent", f"manyview/{__version__}"),
)


@dataclass(frozen=True, kw_only=True)
class TLSOptions:
    """Files in PEM format. Without `ca`, the root certificates of gRPC are trusted. `cert` and `key` are for mutual
    TLS. `server_name` is the name in the server's certificate, if the target is another name."""

    ca: str | PathLike[str] | None = None
    cert: str | PathLike[str] | None = None
    key: str | PathLike[str] | None = None
    server_name: str | None = None

    @classmethod
    def from_environment(cls) -> TLSOptions | None:
        """Return the options that $MANYVIEW_TLS_CA and $MANYVIEW_TLS_SERVER_NAME set, or None if neither is set."""
        ca, name = os.environ.get("MANYVIEW_TLS_CA"), os.environ.get("MANYVIEW_TLS_SERVER_NAME")
        return cls(ca=ca or None, server_name=name or None) if ca or name else None


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """The limits of all kinds of waits, in seconds."""

    # A call with one answer.
    unary_s: float = 30.0
    # A batch of embeddings, in a call or in a stream, and a preview.
    embed_s: float = 60.0
    # The silence after which a stream counts as broken.
    idle_s: float = 45.0
    # The continuous failure after which a stream is not opened again.
    reconnect_s: float = 300.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}")

    @property
    def longest_s(self) -> float:
        """The longest wait for one answer or message."""
        return max(self.unary_s, self.embed_s, self.idle_s)


class Channel:
    """A gRPC channel, which the first call opens. Threads can share it."""

    def __init__(
        self,
        target: str,
        *,
        token: str | None,
        tls: bool | str | PathLike[str] | TLSOptions | None,
        deadlines: Deadlines,
    ) -> None:
        self.target = target
        self.deadlines = deadlines
        self._tls = tls
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._lock = threading.Lock()
        self._grpc: grpc.Channel | None = None
        self._closed = False
        self._has_answered = False
        self._num_calls = 0

    def unary(self, method: str, request: Message, reply: type[R], *, timeout_s: float | None = None) -> R:
        """Call `method` ("/package.Service/Method") and wait for its reply, within `timeout_s` over all attempts."""
        call = self._connect().unary_unary(
            method, request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString
        )
        deadline = Deadline(self.deadlines.unary_s if timeout_s is None else timeout_s)
        backoff = Backoff(max_attempts=None if self._has_answered else _MAX_ATTEMPTS)
        while True:
            try:
                answer: R = self._answer(call, request, deadline.left_s())
                self._has_answered = True
                return answer
            except grpc.RpcError as cause:
                error = self._error_of(cause)
                if _was_suspended(error, deadline):
                    continue
                if not is_transient(error):
                    raise error from cause
                error.__cause__ = cause
                backoff.wait(error, at_most_s=deadline.left_s())

    def _answer(self, call: Any, request: Message, timeout_s: float | None) -> Any:
        """Return the reply to one call.

        A thread that calls alone waits in gRPC, which is fastest. There, and in `future.result()`, a thread wakes
        several times a second to look for signals. Beside many threads, all of which want the interpreter's lock then,
        replies came seconds late. So threads that call at the same time wait for an event.
        """
        with self._lock:
            is_alone = self._num_calls == 0
            self._num_calls += 1
        try:
            if is_alone:
                return call(request, timeout=timeout_s, metadata=self._metadata)
            future = call.future(request, timeout=timeout_s, metadata=self._metadata)
            ended = threading.Event()
            future.add_done_callback(lambda _: ended.set())
            try:
                ended.wait()
            except BaseException:
                future.cancel()
                raise
            return future.result()
        finally:
            with self._lock:
                self._num_calls -= 1

    def _error_of(self, cause: grpc.RpcError) -> ManyviewError:
        """Return the SDK's error for a failed call.

        The gRPC library of a server cancels all calls when its loop ends. If nobody here cancelled the call, the server
        is unavailable.
        """
        error = from_rpc_error(cause, self.target)
        if isinstance(error, Cancelled) and not error.reason and not self._closed:
            return Unavailable(f"the server at {self.target} dropped the call")
        return error

    def server_stream(self, method: str, request: Q, reply: type[R]) -> Stream[Q, R]:
        """Open a stream of replies to one request."""
        call: Any = self._connect().unary_stream(
            method, request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString
        )

        def start(_: Iterator[Q]) -> Any:
            return call(request, metadata=self._metadata)

        return Stream(start, self._error_of, target=self.target, idle_s=self.deadlines.idle_s).start()

    def bidi_stream(
        self,
        method: str,
        reply: type[R],
        *,
        idle_s: float | None = None,
        on_message: Callable[[], None] = lambda: None,
    ) -> Stream[QB, R]:
        """Open a stream of requests, which are messages or their bytes, and of replies. `on_message` is that of
        `Stream`."""
        call: Any = self._connect().stream_stream(
            method, request_serializer=_serialized, response_deserializer=reply.FromString
        )

        def start(requests: Iterator[QB]) -> Any:
            return call(requests, metadata=self._metadata)

        idle_s = self.deadlines.idle_s if idle_s is None else idle_s
        return Stream(start, self._error_of, target=self.target, idle_s=idle_s, on_message=on_message).start()

    def health(self) -> HealthStatus:
        """Return the health of the server, as `grpc.health.v1` defines it. Raw bytes make a further package
        unnecessary: an empty request asks for the whole server, and the reply is one field, 08 and the status."""
        call: Any = self._connect().unary_unary("/grpc.health.v1.Health/Check", None, None)
        deadline = Deadline(self.deadlines.unary_s)
        reply: bytes | None = None
        while reply is None:
            try:
                reply = call(b"", timeout=deadline.left_s(), metadata=self._metadata)
            except grpc.RpcError as cause:
                error = self._error_of(cause)
                if not _was_suspended(error, deadline):
                    raise error from cause
        self._has_answered = True
        status = reply[1] if len(reply) > 1 else 0
        return _HEALTH[status]

    def close(self) -> None:
        """Close the connection and cancel all calls. A second call does nothing."""
        with self._lock:
            self._closed = True
            if self._grpc is not None:
                self._grpc.close()
                self._grpc = None

    def _connect(self) -> grpc.Channel:
        with self._lock:
            if self._closed:
                raise ValueError("this client is closed")
            if self._grpc is None:
                self._grpc = self._open()
            return self._grpc

    def _open(self) -> grpc.Channel:
        if self._tls in (None, False):
            if self._metadata and not _is_local(self.target):
                _LOG.warning("the token travels to %s without encryption: set tls=", self.target)
            return grpc.insecure_channel(self.target, options=_OPTIONS)
        tls = self._tls
        options = tls if isinstance(tls, TLSOptions) else TLSOptions(ca=None if isinstance(tls, bool) else tls)
        name = (("grpc.ssl_target_name_override", options.server_name),) if options.server_name else ()
        return grpc.secure_channel(self.target, _credentials(options), options=(*_OPTIONS, *name))


def _serialized(request: Message | bytes) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


def _was_suspended(error: ManyviewError, deadline: Deadline) -> bool:
    """Return whether this process was suspended over the deadline. Then the error says nothing about the server, and
    the call must be repeated."""
    return isinstance(error, DeadlineExceeded) and not error.reason and deadline.extend_if_late()


def _credentials(options: TLSOptions) -> grpc.ChannelCredentials:
    if (options.cert is None) != (options.key is None):
        raise ValueError("TLSOptions: set both cert and key, or neither")
    ca, key, cert = (
        None if path is None else Path(path).read_bytes() for path in (options.ca, options.key, options.cert)
    )
    return grpc.ssl_channel_credentials(ca, key, cert)


def _is_local(target: str) -> bool:
    return target.startswith(("localhost:", "127.", "[::1]", "unix:", "dns:///localhost"))
