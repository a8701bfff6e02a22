"""Measure durable uploads beside a plain gRPC stream that carries the same messages.

The plain stream is what gRPC for Python gives: a server with grpc.aio that parses each message and answers it with a
small one, and a client that sends messages that were built before. The SDK's uploads come from bytes in memory and
from a folder. One more process hashes the same images twice, writes and syncs them, and does nothing else. All take
turns for several rounds. Each upload goes into a new data set, which is deleted after it, because a virtual machine's
first use of a page of memory costs many times its later uses. CPU seconds are those of the client's and the server's
process. After the rounds, one more upload from memory runs beside health calls, and one under strace, which counts the
syncs; neither is timed.

    python -m benchmarks.uploads measure --images photographs IMAGES    # one cell: JPEGs of IMAGES
    python -m benchmarks.uploads measure --images small IMAGES          # one cell: images of 2 KB
    python -m benchmarks.uploads report
    python -m benchmarks.uploads clean
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
from pathlib import Path

from benchmarks.uploads import plain_stream
from benchmarks.uploads.cell import SIDES, measured, send
from benchmarks.uploads.images import FOLDER, NUM_IMAGES, write_images
from benchmarks.uploads.report import RESULTS, report


def main() -> None:
    """Measure one cell, print all cells, delete the files, or be one of the processes of a cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("measure", "report", "clean", "echo-server", "send"))
    parser.add_argument("source", nargs="?", type=Path, help="a folder of JPEGs")
    parser.add_argument("--images", choices=tuple(NUM_IMAGES), default="photographs")
    parser.add_argument("--rounds", type=int, default=5, help="the uploads of each side")
    parser.add_argument("--code", default="now", help="a name for the code that is measured")
    parser.add_argument("--others", default="", help="what else ran on the machine")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--dataset", help=argparse.SUPPRESS)
    arguments = parser.parse_intermixed_args()
    match arguments.part:
        case "echo-server":
            asyncio.run(plain_stream.serve())
        case "send":
            print(json.dumps(send(arguments.side, arguments.images, arguments.address, arguments.dataset)))
        case "clean":
            shutil.rmtree(FOLDER, ignore_errors=True)
        case "measure":
            if arguments.source is None:
                parser.error("a folder of JPEGs is needed to measure")
            measure_next(arguments)
            print(report(RESULTS.cells()))
        case _:
            print(report(RESULTS.cells()))


def measure_next(arguments: argparse.Namespace) -> None:
    """Measure a cell, unless there is one."""
    key = {"images": arguments.images, "code": arguments.code}
    if RESULTS.find(**key) is None:
        write_images(arguments.images, arguments.source)
        values = measured(arguments.images, arguments.rounds)
        RESULTS.add(key, values | {"others": arguments.others, "load": round(os.getloadavg()[0], 1)})


if __name__ == "__main__":
    main()
