"""The plain stream: a server with grpc.aio that answers each message with its number, and a client for it."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from benchmarks.uploads.cpu_time import cpu_s

from manyview.v1 import dataset_service_pb2 as pb

METHOD = "/echo/Echo"
MAX_MESSAGE_BYTES = 64 << 20


async def serve() -> None:
    """Answer each message with its number."""

    async def echo(requests: AsyncIterator[pb.UploadImagesRequest], _: Any) -> AsyncIterator[pb.UploadImagesResponse]:
        async for request in requests:
            yield pb.UploadImagesResponse(ack=pb.BatchAck(number=request.batch.number))

    handler = grpc.stream_stream_rpc_method_handler(
        echo, pb.UploadImagesRequest.FromString, pb.UploadImagesResponse.SerializeToString
    )
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"address": f"127.0.0.1:{port}"}), flush=True)
    await server.wait_for_termination()


async def send(address: str, batches: Sequence[pb.UploadImagesRequest]) -> dict[str, Any]:
    """Send messages over the plain stream, and wait for the answers."""
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        method: Any = channel.stream_stream(
            METHOD, pb.UploadImagesRequest.SerializeToString, pb.UploadImagesResponse.FromString
        )
        call = method()
        gc.collect()
        began, cpu = time.perf_counter(), cpu_s()

        async def write() -> None:
            for batch in batches:
                await call.write(batch)
            await call.done_writing()

        writing = asyncio.create_task(write())
        answers = [response.ack.number async for response in call]
        await writing
        taken = {"seconds": time.perf_counter() - began, "client_cpu_s": cpu_s() - cpu}
    assert answers == list(range(1, len(batches) + 1))
    return taken
