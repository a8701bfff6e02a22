"""What surrounds every call: the token, the refusal while draining, and errors turned into statuses.

Handlers are written as coroutines and async generators that raise `ServiceError`; nothing else of theirs reaches the
wire. Only this package's services are wrapped: health and reflection speak for themselves.
"""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc

from manyview_server.errors import InvalidArgument, ServiceError, Unauthenticated
from manyview_server.front.draining import Draining, OpenCall
from manyview_server.front.status import public_error, status_code, text_of, trailing_metadata

SERVICE_PREFIX = "/manyview.v1."
HEALTH_PREFIX = "/grpc.health.v1."

Handler = Any
Context = grpc.aio.ServicerContext[Any, Any]


class Malformed:
    """Stands for a request whose bytes are no message of its type."""


def lenient(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """The library answers unparseable bytes with UNKNOWN and the parser's text: let them through to be refused here."""

    def parse(data: bytes) -> Any:
        try:
            return deserialize(data)
        except Exception:
            return Malformed()

    return parse


class CheckedRequests:
    """A stream's requests; a malformed one raises."""

    def __init__(self, requests: AsyncIterator[Any]) -> None:
        self._requests = requests.__aiter__()

    def __aiter__(self) -> CheckedRequests:
        return self

    async def __anext__(self) -> Any:
        return well_formed(await self._requests.__anext__())


def well_formed(request: Any) -> Any:
    """The request, where it was one."""
    if isinstance(request, Malformed):
        raise InvalidArgument("MALFORMED_REQUEST", "the request's bytes are no message of this method's type")
    return request


async def abort(context: Context, error: ServiceError) -> None:
    """End the call with this error's status and details."""
    await context.abort(status_code(error), text_of(error), trailing_metadata(error))


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """Asks for the token where there is one, refuses new calls while the server drains, maps errors to statuses."""

    def __init__(self, draining: Draining, token: str = "") -> None:
        self._draining = draining
        self._expected = f"Bearer {token}".encode() if token else None

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The method's handler, wrapped. Health checks are left alone, and need no token."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method.startswith(HEALTH_PREFIX):
            return handler
        if not self._has_token(handler_call_details):
            return guarded(handler, self._refuse)
        return guarded(handler, self._guard) if method.startswith(SERVICE_PREFIX) else handler

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
        with self._draining.waited_for() as call:
            try:
                self._draining.check()
                yield call
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await abort(context, public_error(error))


Guard = Callable[[Context], contextlib.AbstractAsyncContextManager[OpenCall]]


def guarded(handler: Handler, guard: Guard) -> Handler:
    """The same handler, its call inside of the guard and its requests parsed leniently."""
    shape = ("stream" if handler.request_streaming else "unary", "stream" if handler.response_streaming else "unary")
    behaviour = getattr(handler, "_".join(shape))
    accept = CheckedRequests if handler.request_streaming else well_formed

    async def answer(request: Any, context: Context) -> Any:
        async with guard(context):
            return await behaviour(accept(request), context)

    async def stream(request: Any, context: Context) -> None:
        # Written instead of yielded: a cancelled call closes the generator now, not when it is collected.
        async with guard(context) as call, aclosing(behaviour(accept(request), context)) as responses:
            async for response in responses:
                with call.writing():
                    await context.write(response)

    make = getattr(grpc, "_".join(shape) + "_rpc_method_handler")
    return make(
        stream if handler.response_streaming else answer,
        lenient(handler.request_deserializer),
        handler.response_serializer,
    )
