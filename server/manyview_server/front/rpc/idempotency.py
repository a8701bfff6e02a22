"""Answer a repeated request with its first answer. A `request_id` marks requests as the same."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from manyview_server.front.rpc.resource_names import request_id
from manyview_server.store.idempotency_log import IdempotencyLog

Response = TypeVar("Response", bound=Message)


async def once(
    requests: IdempotencyLog,
    request: Message,
    given_id: str,
    act: Callable[[], Awaitable[Response]],
    kind: type[Response],
) -> Response:
    """Return the answer of `act`, or the earlier answer to the same request. Without a request id, always call `act`.

    Raises:
        AlreadyExists: REQUEST_ID_REUSED, if another request had this id.
        InvalidArgument: the id is not a UUID.
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
