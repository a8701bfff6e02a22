"""A fake manyview server in this process, for tests: real gRPC on a loopback port, all data in memory, no torch.

    with FakeServer() as server, manyview.Client(server.target) as client:
        server.fail("GetDataset", "UNAVAILABLE")             # the next call only
        dataset = client.upload([image], dataset="mine")
        assert server.requests("CreateDataset")[0].dataset_id == "mine"

It behaves like a small server: it stores and deduplicates images, a job is QUEUED until `finish_job`, the events of a
job are those that `add_event` added, embeddings are a fixed function of the image's bytes, and a selection is the first
images. `fail` and `reply` script everything else.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import grpc
from google.protobuf.message import Message

from manyview._errors import Violation
from manyview._testing import replies as fake
from manyview._testing.errors import Refused, status_details
from manyview._types.words import JobState
from manyview.v1 import (
    dataset_service_pb2,
    embed_service_pb2,
    metrics_service_pb2,
    model_service_pb2,
    train_job_service_pb2,
)

_FILES = (dataset_service_pb2, train_job_service_pb2, embed_service_pb2, metrics_service_pb2, model_service_pb2)


@dataclass(frozen=True)
class Call:
    """One call that arrived: its RPC, its metadata, and the seconds until its deadline (None if it has no deadline)."""

    rpc: str
    metadata: dict[str, str]
    deadline_s: float | None


@dataclass(frozen=True)
class CallFailure:
    """The status that ends a call. A stream sends `after` replies first. `details` is a google.rpc.Status."""

    code: grpc.StatusCode
    message: str
    details: bytes
    after: int


class FakeServer:
    """Serves `manyview.v1` and `grpc.health.v1` on `target`. Use it in a `with` block.

    `calls` lists every call in order. `state` holds the data sets, jobs and settings of the server (see `FakeState`).
    """

    def __init__(self, *, token: str | None = None) -> None:
        self.state = fake.FakeState()
        self.calls: list[Call] = []
        self._token = token
        self._requests: dict[str, list[Any]] = defaultdict(list)
        self._failures: dict[str, list[CallFailure]] = defaultdict(list)
        self._replies: dict[str, list[Callable[..., Any]]] = defaultdict(list)
        self._lock = threading.Lock()
        self._pool = futures.ThreadPoolExecutor(max_workers=16, thread_name_prefix="manyview-fake")

    def __enter__(self) -> FakeServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @cached_property
    def target(self) -> str:
        """The address of the server. The first look at it binds a free port."""
        return f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    @cached_property
    def _server(self) -> grpc.Server:
        options = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", self.state.max_message_bytes))
        server = grpc.server(self._pool, options=options)
        server.add_generic_rpc_handlers((*map(self._service, _FILES), self._health()))
        return server

    def start(self) -> None:
        """Bind the port, unless `target` has done so, and serve."""
        _ = self.target
        self._server.start()

    def stop(self) -> None:
        """End all calls and stop listening."""
        self.state.close()
        self._server.stop(None).wait(5)
        self._pool.shutdown(wait=False, cancel_futures=True)

    # --- scripting

    def fail(
        self,
        rpc: str,
        code: str,
        *,
        times: int = 1,
        message: str = "scripted",
        reason: str = "",
        metadata: dict[str, str] | None = None,
        retry_after_s: float | None = None,
        violations: Mapping[str, str] | Iterable[Violation] = (),
        after: int = 0,
    ) -> None:
        """End the next `times` calls of `rpc` with a status; streams end after `after` replies. With `reason`,
        `retry_after_s` or `violations`, which may also be descriptions by their fields, the status has google.rpc
        details."""
        named = [Violation(*each) for each in violations.items()] if isinstance(violations, Mapping) else violations
        details = status_details(code, message, reason, metadata or {}, retry_after_s, named)
        failure = CallFailure(grpc.StatusCode[code], message, details, after)
        self._failures[rpc] += [failure] * times

    def reply(self, rpc: str, *handlers: Message | Callable[..., Any]) -> None:
        """Answer each of the next calls of `rpc` with one of these: a message, or a function of (request, context). For
        streams the request is an iterator and the result an iterable."""
        for handler in handlers:
            self._replies[rpc].append(handler if callable(handler) else lambda *_, message=handler: message)

    def requests(self, rpc: str) -> list[Any]:
        """Return every message that this RPC received, over all calls."""
        with self._lock:
            return list(self._requests[rpc])

    # --- jobs

    def add_event(self, job: str, **event: Any) -> None:
        """Append an event to a job's log. The server numbers it; `event` are the fields of `MetricsEvent`."""
        self.state.add_event(job, metrics_service_pb2.MetricsEvent(**event))

    def add_scalars(self, job: str, step: int, **values: float) -> None:
        """Append a scalars event."""
        scalars = metrics_service_pb2.Scalars(values=values)
        self.add_event(job, step=step, kind=metrics_service_pb2.MetricsEvent.KIND_SCALARS, scalars=scalars)

    def finish_job(self, job: str, state: JobState = "SUCCEEDED", *, failure: dict[str, str] | None = None) -> None:
        """End a job. Its subscribers get the state event and the end of the stream."""
        self.state.finish_job(job, state, failure)

    # --- serving

    def _service(self, file: Any) -> grpc.GenericRpcHandler[Any, Any]:
        ((name, service),) = file.DESCRIPTOR.services_by_name.items()
        handlers = {method.name: self._handler(file, method) for method in service.methods}
        return grpc.method_handlers_generic_handler(f"{file.DESCRIPTOR.package}.{name}", handlers)

    def _handler(self, file: Any, method: Any) -> grpc.RpcMethodHandler[Any, Any]:
        request, reply = getattr(file, method.input_type.name), getattr(file, method.output_type.name)
        make, serve = {
            (False, False): (grpc.unary_unary_rpc_method_handler, self._unary),
            (False, True): (grpc.unary_stream_rpc_method_handler, self._stream),
            (True, True): (grpc.stream_stream_rpc_method_handler, self._stream),
        }[method.client_streaming, method.server_streaming]

        def handle(received: Any, context: grpc.ServicerContext) -> Any:
            return serve(method.name, received, context)

        return make(handle, request_deserializer=request.FromString, response_serializer=reply.SerializeToString)

    def _unary(self, rpc: str, request: Message, context: grpc.ServicerContext) -> Message:
        failure = self._admit(rpc, context)
        with self._lock:
            self._requests[rpc].append(request)
        if failure is not None:
            _abort(context, failure)
        try:
            answer: Message = self._answer(rpc)(request, context)
        except Refused as refused:
            _abort(context, CallFailure(grpc.StatusCode[refused.code], refused.message, refused.details(), 0))
        return answer

    def _stream(self, rpc: str, request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
        failure = self._admit(rpc, context)
        received = self._recorded(rpc, request if hasattr(request, "__next__") else iter([request]))
        argument = received if hasattr(request, "__next__") else next(received)
        if failure is not None and failure.after == 0:
            _abort(context, failure)
        try:
            for count, message in enumerate(self._answer(rpc)(argument, context), start=1):
                yield message
                if failure is not None and count >= failure.after:
                    _abort(context, failure)
        except Refused as refused:
            _abort(context, CallFailure(grpc.StatusCode[refused.code], refused.message, refused.details(), 0))

    def _admit(self, rpc: str, context: grpc.ServicerContext) -> CallFailure | None:
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        left_s = context.time_remaining()
        with self._lock:
            self.calls.append(Call(rpc, metadata, left_s if left_s is not None and left_s < 1e6 else None))
            failure = self._failures[rpc].pop(0) if self._failures[rpc] else None
        if self._token is not None and metadata.get("authorization") != f"Bearer {self._token}":
            details = status_details("UNAUTHENTICATED", "wrong token", "TOKEN_INVALID", {}, None, {})
            return CallFailure(grpc.StatusCode.UNAUTHENTICATED, "wrong token", details, 0)
        return failure

    def _answer(self, rpc: str) -> Callable[..., Any]:
        with self._lock:
            if self._replies[rpc]:
                return self._replies[rpc].pop(0)
        handler: Callable[..., Any] = getattr(self.state, fake.snake(rpc))
        return handler

    def _recorded(self, rpc: str, messages: Iterator[Message]) -> Iterator[Message]:
        for message in messages:
            with self._lock:
                self._requests[rpc].append(message)
            yield message

    def _health(self) -> grpc.GenericRpcHandler[Any, Any]:
        def check(_: bytes, context: grpc.ServicerContext) -> bytes:
            self._admit("Check", context)
            return b"\x08\x01" if self.state.is_serving else b"\x08\x02"

        handler = grpc.unary_unary_rpc_method_handler(check)
        return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})


def _abort(context: grpc.ServicerContext, failure: CallFailure) -> None:
    if failure.details:
        context.set_trailing_metadata((("grpc-status-details-bin", failure.details),))
    context.abort(failure.code, failure.message)
