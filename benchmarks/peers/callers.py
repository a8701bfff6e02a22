"""The calls of each side: one JPEG in, one row out, over connections that stay open.

A side is a context manager that yields a function. manyview's client blocks, so each caller is a thread. The peers'
callers are tasks of one event loop.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import numpy as np
import numpy.typing as npt

Row = npt.NDArray[np.float32]
Blocking = Callable[[bytes], Row]
Asynchronous = Callable[[bytes], Awaitable[Row]]

TIMEOUT_S = 60
PATHS = {"mosec": "/inference", "litserve": "/predict", "bentoml": "/embed", "ray": "/"}
FIELDS = {"litserve": "image", "bentoml": "images"}
"""The field of the form that carries the file. The others take it as the body."""


@contextmanager
def manyview_client(address: str, model: str) -> Iterator[Blocking]:
    """Yield the call that users of manyview make. All threads share a client."""
    import manyview

    with manyview.Client(address, timeout_s=TIMEOUT_S) as client:

        def embed(jpeg: bytes) -> Row:
            found = client.embed([jpeg], model, progress=False)
            if found.errors:
                raise RuntimeError(str(found.errors))
            return found.array[0]

        yield embed


@asynccontextmanager
async def stubs(address: str, model: str) -> AsyncIterator[Asynchronous]:
    """Yield a call through manyview's generated stubs."""
    import grpc

    from manyview.v1 import embed_service_pb2, embed_service_pb2_grpc, types_pb2

    async with grpc.aio.insecure_channel(address) as channel:
        stub = embed_service_pb2_grpc.EmbedServiceStub(channel)

        async def embed(jpeg: bytes) -> Row:
            request = embed_service_pb2.EmbedRequest(model=model, images=[types_pb2.Image(data=jpeg)])
            reply = await stub.Embed(request, timeout=TIMEOUT_S)
            return np.frombuffer(reply.embeddings.data, np.float32)

        yield embed


@asynccontextmanager
async def http(side: str, address: str) -> AsyncIterator[Asynchronous]:
    """Yield a call over HTTP, with as many connections as there are callers."""
    import aiohttp

    url, field = f"http://{address}{PATHS[side]}", FIELDS.get(side)
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def embed(jpeg: bytes) -> Row:
            if field is None:
                body: aiohttp.FormData | bytes = jpeg
            else:
                body = aiohttp.FormData()
                body.add_field(field, jpeg, filename="image.jpg", content_type="image/jpeg")
            async with session.post(url, data=body) as reply:
                answer = await reply.read()
                if reply.status != 200:
                    raise RuntimeError(f"status {reply.status}: {answer[:200]!r}")
            if side == "bentoml":
                return np.asarray(json.loads(answer), np.float32).reshape(-1)
            return np.frombuffer(answer, np.float32)

        yield embed
