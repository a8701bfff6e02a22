"""Subscribers of one job in one process: raw calls of grpc.aio, which keep nothing but when each message came.

    python -m benchmarks.subscribers.crowd ADDRESS JOB FILE --live 20 --replay 500

It connects, prints a line, and opens the streams when a line comes in. At the next line it ends, writes the arrivals of
the live subscribers to FILE, and prints what it has seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from manyview.v1 import metrics_service_pb2 as pb

METHOD = "/manyview.v1.MetricsService/SubscribeMetrics"
PER_CONNECTION = 50
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 20)]
"""The options of the SDK that change what a stream costs."""


@dataclass(slots=True)
class Subscriber:
    """The cursor of one stream, what broke its order, and the arrivals of its messages."""

    cursor: int
    gaps: int = 0
    num_bytes: int = 0
    caught_up_s: float = 0.0
    arrivals: array[float] = field(default_factory=lambda: array("d"))
    """First sequence, last sequence and time of each message, one after another."""


class Crowd:
    """All subscribers. They share what they parse: all of them get the same messages."""

    def __init__(self, job: str, newest: int) -> None:
        self._job = job
        self._newest = newest
        self._spans: dict[bytes, tuple[int, int, int]] = {}
        self.live: list[Subscriber] = []
        self.replay: list[Subscriber] = []

    async def follow(self, channel: Any, subscriber: Subscriber) -> None:
        """Read a stream until it is cancelled."""
        request = pb.SubscribeMetricsRequest(train_job=self._job, after_sequence=subscriber.cursor, follow=True)
        began = time.time()
        async for data in channel.unary_stream(METHOD, pb.SubscribeMetricsRequest.SerializeToString)(request):
            at = time.time()
            first, count, cursor = self._span(data)
            if count:
                if first != subscriber.cursor + 1 or cursor - first + 1 != count:
                    subscriber.gaps += 1
                subscriber.arrivals.extend((first, cursor, at))
            subscriber.cursor = cursor
            subscriber.num_bytes += len(data)
            if not subscriber.caught_up_s and cursor >= self._newest:
                subscriber.caught_up_s = at - began

    def _span(self, data: bytes) -> tuple[int, int, int]:
        """Return the first sequence, the number of events and the cursor of a message."""
        if (span := self._spans.get(data)) is None:
            message = pb.SubscribeMetricsResponse.FromString(data)
            first = message.events[0].sequence if message.events else 0
            span = first, len(message.events), message.cursor
            if len(self._spans) > 2_000:
                self._spans.clear()
            self._spans[data] = span
        return span


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Hold the streams between two lines of standard input."""
    num = arguments.live + arguments.replay
    channels = [grpc.aio.insecure_channel(arguments.address, OPTIONS) for _ in range(-(-num // PER_CONNECTION))]
    for channel in channels:
        await channel.channel_ready()
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print("ready", flush=True)
    newest = int(await lines.readline())
    crowd = Crowd(arguments.job, newest)
    crowd.live = [Subscriber(newest) for _ in range(arguments.live)]
    crowd.replay = [Subscriber(0) for _ in range(arguments.replay)]
    every = crowd.live + crowd.replay
    tasks = [
        asyncio.create_task(crowd.follow(channels[number // PER_CONNECTION], subscriber))
        for number, subscriber in enumerate(every)
    ]
    await lines.readline()
    failed = sum(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for channel in channels:
        await channel.close(None)
    np.save(arguments.file, np.concatenate([np.array(s.arrivals).reshape(-1, 3) for s in crowd.live or every]))
    caught_up = [s.caught_up_s for s in crowd.replay if s.caught_up_s]
    return {
        "failed": failed,
        "gaps": sum(s.gaps for s in every),
        "behind": max(s.cursor for s in every) - min(s.cursor for s in every),
        "mb": sum(s.num_bytes for s in every) / 1e6,
        "caught_up": len(caught_up),
        "caught_up_s": max(caught_up, default=0.0),
    }


def main() -> None:
    """Run the crowd."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("job")
    parser.add_argument("file", type=Path)
    parser.add_argument("--live", type=int, default=0)
    parser.add_argument("--replay", type=int, default=0)
    print(json.dumps(asyncio.run(run(parser.parse_args()))), flush=True)


if __name__ == "__main__":
    main()
