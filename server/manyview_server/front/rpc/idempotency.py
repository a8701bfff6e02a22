"""A mutation that is sent again under its `request_id` gets the first answer again."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from manyview_server.front.rpc.resource_names import request_id
from manyview_server.store.idempotency_log import RequestLog

Response = TypeVar("Response", bound=Message)


async def once(
    requests: RequestLog,
    request: Message,
    given_id: str,
    act: Callable[[], Awaitable[Response]],
    kind: type[Response],
) -> Response:
    """What `act` answers, or answered to the same request before; without a request id it acts each time.

    Raises AlreadyExists REQUEST_ID_REUSED where another request had this id, InvalidArgument where it is no UUID.
    """
    key = request_id(given_id)
    if not key:
        return await act()

    async def serialized() -> bytes:
        return (await act()).SerializeToString()

    body_hash = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    answer = kind()
    answer.ParseFromString(await requests.once(key, type(request).__name__, body_hash, serialized))
    return answer
