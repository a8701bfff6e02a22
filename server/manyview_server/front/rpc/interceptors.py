"""Check every call: its token, the size of its requests, and that the server is not draining. Map errors to statuses.

Handlers are coroutines and async generators that raise `ServiceError`; no other exception of theirs reaches the wire.
Health and reflection are exempt: only the size of their requests is checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from manyview_server.errors import InvalidArgument, ServiceError, Unauthenticated
from manyview_server.front.rpc import wire_check
from manyview_server.front.rpc.draining import Draining, OpenCall
from manyview_server.front.rpc.status import public_error, status_code, text_of, trailing_metadata

SERVICE_PREFIX = "/manyview.v1."
HEALTH_PREFIX = "/grpc.health.v1."
MAX_OTHER_BYTES = 64 << 10
"""The most bytes of a request to health or reflection. It is far above what these take."""

Handler = Any
Context = grpc.aio.ServicerContext[Any, Any]
Reader = Callable[[bytes], Any]
"""Reads the requests of a method that are in its usual form, and checks their limits. Returns None for the others."""


class RequestParser:
    """Parses the requests of one method. Refuses a request that is too large before it is parsed."""

    def __init__(self, method: str, parse: Callable[[bytes], Any], read: Reader | None = None) -> None:
        """`method` is "/package.Service/Method". Only requests of this package are checked against the limits."""
        self._parse = parse
        self._read = read
        self._limits = wire_check.wire_message(_request_type(method)) if method.startswith(SERVICE_PREFIX) else None

    async def request(self, data: bytes) -> Any:
        """Parse one request. Raises InvalidArgument, MALFORMED_REQUEST or FIELD_INVALID with what is too large."""
        if self._read is not None and (found := self._read(data)) is not None:
            return found
        try:
            if self._limits is not None:
                for _ in wire_check.check(data, self._limits):
                    await asyncio.sleep(0)
            return self._parse(data)
        except (wire_check.NotOnTheWire, DecodeError) as error:
            text = "the request is not a message of the type that this method takes"
            raise InvalidArgument("MALFORMED_REQUEST", text) from error


class CheckedRequests:
    """The requests of a stream. A request that is malformed or too large raises InvalidArgument."""

    def __init__(self, requests: AsyncIterator[bytes], parser: RequestParser) -> None:
        self._requests = requests.__aiter__()
        self._parser = parser

    def __aiter__(self) -> CheckedRequests:
        return self

    async def __anext__(self) -> Any:
        return await self._parser.request(await self._requests.__anext__())


def _request_type(method: str) -> Descriptor:
    service, _, name = method.removeprefix("/").partition("/")
    found: Any = descriptor_pool.Default().FindServiceByName(service)
    return cast(Descriptor, found.methods_by_name[name].input_type)


async def abort(context: Context, error: ServiceError) -> None:
    """End the call with this error's status and details."""
    await context.abort(status_code(error), text_of(error), trailing_metadata(error))


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """Checks the token if the server has one, refuses new calls while the server drains, and maps errors to
    statuses."""

    def __init__(self, draining: Draining, token: str = "", readers: Mapping[str, Reader] | None = None) -> None:
        """`readers` has readers of requests by method, for methods that are faster with one."""
        self._draining = draining
        self._readers = readers or {}
        self._expected = f"Bearer {token}".encode() if token else None
        self._parsers: dict[str, RequestParser] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return the handler of a method with the checks around it. Health checks need no token."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None:
            return None
        if not method.startswith(HEALTH_PREFIX) and not self._has_token(handler_call_details):
            return guarded(handler, self._refuse, RequestParser("", handler.request_deserializer))
        if not method.startswith(SERVICE_PREFIX):
            return bounded(handler)
        if method not in self._parsers:
            reader = self._readers.get(method)
            self._parsers[method] = RequestParser(method, handler.request_deserializer, reader)
        return guarded(handler, self._guard, self._parsers[method])

    def _has_token(self, details: grpc.HandlerCallDetails) -> bool:
        if self._expected is None:
            return True
        given = next((value for key, value in details.invocation_metadata or () if key == "authorization"), "")
        return hmac.compare_digest(given if isinstance(given, bytes) else given.encode(), self._expected)

    @asynccontextmanager
    async def _refuse(self, context: Context) -> AsyncIterator[OpenCall]:
        await abort(context, Unauthenticated("TOKEN_INVALID", "the call carries no valid token"))
        yield OpenCall()

    @asynccontextmanager
    async def _guard(self, context: Context) -> AsyncIterator[OpenCall]:
        with self._draining.open_call() as call:
            try:
                self._draining.check()
                yield call
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await abort(context, public_error(error))


Guard = Callable[[Context], contextlib.AbstractAsyncContextManager[OpenCall]]


def guarded(handler: Handler, guard: Guard, parser: RequestParser) -> Handler:
    """Return a handler that runs `handler` inside of the guard and parses its requests with `parser`.

    The library itself would parse the request, and would answer a malformed one with UNKNOWN and the parser's text. So
    it gets no parser, and passes the bytes on.
    """
    shape = _shape(handler)
    behaviour = getattr(handler, "_".join(shape))

    async def accepted(requests: Any) -> Any:
        return CheckedRequests(requests, parser) if handler.request_streaming else await parser.request(requests)

    async def answer(request: Any, context: Context) -> Any:
        async with guard(context):
            return await behaviour(await accepted(request), context)

    async def stream(request: Any, context: Context) -> None:
        # This writes the responses instead of yielding them. So a call that is cancelled closes the generator at once,
        # not when it is collected.
        async with guard(context) as call, aclosing(behaviour(await accepted(request), context)) as responses:
            async for response in responses:
                with call.writing():
                    await context.write(response)

    make = getattr(grpc, "_".join(shape) + "_rpc_method_handler")
    return make(stream if handler.response_streaming else answer, None, _serializer(handler))


def _serializer(handler: Handler) -> Callable[[Any], bytes]:
    """Return the serializer of a method's responses. It leaves bytes as they are: a response that many calls share is
    serialized once."""
    serialize = handler.response_serializer

    def serialized(response: Any) -> bytes:
        return response if isinstance(response, bytes) else cast(bytes, serialize(response))

    return serialized


def bounded(handler: Handler) -> Handler:
    """Return a handler that refuses a request of more than `MAX_OTHER_BYTES` before it is parsed.

    The library logs the refusal and answers UNKNOWN.
    """

    def parse(data: bytes) -> Any:
        if len(data) > MAX_OTHER_BYTES:
            raise ValueError(f"the request has {len(data):,} bytes; at most {MAX_OTHER_BYTES:,} are allowed")
        return handler.request_deserializer(data)

    shape = "_".join(_shape(handler))
    make = getattr(grpc, shape + "_rpc_method_handler")
    return make(getattr(handler, shape), parse, handler.response_serializer)


def _shape(handler: Handler) -> tuple[str, str]:
    return "stream" if handler.request_streaming else "unary", "stream" if handler.response_streaming else "unary"
