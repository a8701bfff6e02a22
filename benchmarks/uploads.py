"""Measure durable uploads beside a plain gRPC stream that carries the same messages.

The plain stream is what gRPC for Python gives: a server with grpc.aio that parses each message and answers it with a
small one, and a client that sends messages that were built before. The SDK's uploads come from bytes in memory and
from a folder. The three take turns for several rounds; each upload goes into a new data set, which is deleted after
it, because a virtual machine's first use of a page of memory costs many times its later uses. CPU seconds are those of
the client's and the server's process. After the rounds, one more upload from memory runs beside health calls, and one
under strace, which counts the syncs; neither is timed.

    python -m benchmarks.uploads measure --images photographs IMAGES    # one cell: JPEGs of IMAGES
    python -m benchmarks.uploads measure --images small IMAGES          # one cell: images of 2 KB
    python -m benchmarks.uploads report
    python -m benchmarks.uploads clean
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import re
import resource
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from benchmarks.large_data.beyond_memory import with_comment
from benchmarks.loop import percentile, probing
from benchmarks.results import Results, table

import manyview
from manyview._types.server import Limits
from manyview._uploads.batcher import Batcher
from manyview._uploads.encoded_image import EncodedImage
from manyview._uploads.window import Window
from manyview.v1 import dataset_service_pb2 as pb

RESULTS = Results("uploads")
FOLDER = Path(tempfile.gettempdir()) / "manyview-uploads"
NUM_IMAGES = {"photographs": 3_068, "small": 20_000}
SMALL_BYTES = 2_048
BATCH_IMAGES = 256
SIDES = ("echo", "memory", "folder")
NAMES = {"echo": "plain stream", "memory": "from memory", "folder": "from a folder"}
METHOD = "/echo/Echo"
ECHO_MESSAGE_BYTES = 64 << 20
SYNCS, SYNC_BYTES = 30, 8 << 20
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


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
            asyncio.run(serve_echo())
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


# --- the images


def write_images(kind: str, source: Path) -> None:
    """Write the folder of images, unless an earlier call has."""
    folder = FOLDER / kind
    if folder.exists():
        return
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    files = [path.read_bytes() for path in sorted(source.rglob("*.jp*g"))] if kind == "photographs" else []
    for number in range(NUM_IMAGES[kind]):
        data = with_comment(files[number % len(files)], f"{number:08d}".encode()) if files else small_image(number)
        path = unfinished / f"{number % 10}" / f"{number:06d}{'.jpg' if files else '.png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    unfinished.rename(folder)


def small_image(number: int) -> bytes:
    """Return a PNG of 2 KB, 25 x 25 pixels, that differs from all others."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = bytes(1) + number.to_bytes(4, "big") + bytes(range(71))
    pixels = chunk(b"IHDR", struct.pack(">IIBBBBB", 25, 25, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(row * 25, 0))
    image = b"\x89PNG\r\n\x1a\n" + pixels
    return image + chunk(b"tEXt", b"Comment\0".ljust(SMALL_BYTES - len(image) - 24, b" ")) + chunk(b"IEND", b"")


def read_images(kind: str) -> list[tuple[str, bytes]]:
    """Return the key and the bytes of each image, in the order in which a folder is sent."""
    paths = sorted((FOLDER / kind).rglob("*.*"))
    return [(path.relative_to(FOLDER / kind).as_posix(), path.read_bytes()) for path in paths]


def messages(kind: str) -> list[pb.UploadImagesRequest]:
    """Return the batches that the SDK sends for these images."""
    limits = Limits(
        max_message_bytes=1 << 25, max_image_bytes=1 << 25, max_image_pixels=0, max_image_side=0,
        max_batch_images=BATCH_IMAGES,
    )  # fmt: skip
    batcher, window, found = Batcher(limits), Window(), []
    for key, data in read_images(kind):
        batcher.add(EncodedImage(key, data, key.partition("/")[0]))
    batcher.close()
    while (batch := batcher.take()) is not None:
        window.add(batch)
        taken = window.take()
        assert taken is not None
        found.append(pb.UploadImagesRequest.FromString(taken.message))
        window.ack(taken.number)
    return found


# --- the processes


async def serve_echo() -> None:
    """Serve the plain stream: answer each message with its number."""

    async def echo(requests: AsyncIterator[pb.UploadImagesRequest], _: Any) -> AsyncIterator[pb.UploadImagesResponse]:
        async for request in requests:
            yield pb.UploadImagesResponse(ack=pb.BatchAck(number=request.batch.number))

    handler = grpc.stream_stream_rpc_method_handler(
        echo, pb.UploadImagesRequest.FromString, pb.UploadImagesResponse.SerializeToString
    )
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", ECHO_MESSAGE_BYTES)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"address": f"127.0.0.1:{port}"}), flush=True)
    await server.wait_for_termination()


def send(side: str, kind: str, address: str, dataset: str) -> dict[str, Any]:
    """Send all images to a server once, and return the wall time and the CPU time of this process."""
    if side == "echo":
        return asyncio.run(send_echo(address, messages(kind)))
    images: Any = FOLDER / kind
    if side == "memory":
        images = [{"key": key, "image": data, "label": key.partition("/")[0]} for key, data in read_images(kind)]
    with manyview.Client(address) as client:
        client.health()
        gc.collect()
        began, cpu = time.perf_counter(), cpu_s()
        sent = client.upload(images, dataset, progress=False).upload
        taken = {"seconds": time.perf_counter() - began, "client_cpu_s": cpu_s() - cpu}
    assert sent is not None
    assert sent.num_stored == NUM_IMAGES[kind], sent
    return taken


async def send_echo(address: str, batches: Sequence[pb.UploadImagesRequest]) -> dict[str, Any]:
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


def cpu_s() -> float:
    """Return the CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_s_of(pid: int) -> float:
    """Return the CPU seconds of another process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


@contextmanager
def process(command: list[str], log: Path) -> Iterator[tuple[str, int]]:
    """Start a process that prints its address. Yield the address and the process id."""
    with log.open("wb") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as started:
        assert started.stdout is not None
        line = started.stdout.readline()
        if not line:
            raise SystemExit(log.read_text()[-2000:])
        told = json.loads(line)
        pid = told.get("pid", started.pid)  # not that of strace around a server
        try:
            yield told["address"], pid
        finally:
            os.kill(pid, signal.SIGTERM)
            started.wait(60)


def serve_command(data: Path) -> list[str]:
    """Return the command of a server."""
    return [sys.executable, "-m", "manyview_server", "serve", "--listen", "127.0.0.1:0", "--data", str(data)]


def send_command(side: str, kind: str, address: str, dataset: str) -> list[str]:
    """Return the command of a client."""
    command = [sys.executable, "-m", "benchmarks.uploads", "send", "--side", side, "--images", kind]
    return [*command, "--address", address, "--dataset", dataset]


# --- a cell


def measured(kind: str, rounds: int) -> dict[str, Any]:
    """Return the values of a cell. The side that begins changes from round to round."""
    data = FOLDER / "data"
    shutil.rmtree(data, ignore_errors=True)
    values: dict[str, Any] = {"num_images": NUM_IMAGES[kind], "num_bytes": num_bytes(kind), "disk": disk()}
    log = FOLDER / "server.log"
    echo_command = [sys.executable, "-m", "benchmarks.uploads", "echo-server"]
    with process(serve_command(data), log) as (address, pid), process(echo_command, FOLDER / "echo.log") as echo:
        for side in ("memory", "echo"):  # neither counts
            run(side, kind, *(echo if side == "echo" else (address, pid)))
        turns: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for number in range(rounds):
            for side in [*SIDES[number % len(SIDES) :], *SIDES[: number % len(SIDES)]]:
                turns[side].append(run(side, kind, *(echo if side == "echo" else (address, pid))))
        with probing(address) as health:
            run("memory", kind, address, pid)
        values |= turns
        values["health"] = {
            "p50_ms": percentile(health, 50), "p99_ms": percentile(health, 99), "max_ms": percentile(health, 100),
            "calls": len(health),
        }  # fmt: skip
        values["server_peak_mib"] = peak_mib(pid)
    values["longest_callback_s"] = longest_callback_s(log.read_text())
    shutil.rmtree(data, ignore_errors=True)
    values["syncs"] = counted_syncs(kind, data)
    shutil.rmtree(data, ignore_errors=True)
    return values


def run(side: str, kind: str, address: str, pid: int) -> dict[str, Any]:
    """Send all images once, from a new process, into a data set that is deleted after it."""
    os.sync()
    before = cpu_s_of(pid)
    done = subprocess.run(send_command(side, kind, address, "sent"), stdout=subprocess.PIPE, check=True, text=True)
    taken: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    taken["server_cpu_s"] = cpu_s_of(pid) - before
    if side != "echo":
        with manyview.Client(address) as client:
            client.delete_dataset("sent")
    return taken


def num_bytes(kind: str) -> int:
    """Return the bytes of all images."""
    return sum(path.stat().st_size for path in (FOLDER / kind).rglob("*.*"))


def peak_mib(pid: int) -> float:
    """Return the largest resident memory that a process had."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def longest_callback_s(log: str) -> float:
    """Return how long the longest callback held the server's loop, as its watchdog logged it at the end."""
    found = re.findall(r"longest callback of the event loop: ([0-9]+) ms", log)
    return int(found[-1]) / 1000 if found else 0.0


def disk() -> dict[str, Any]:
    """Return the file system of the data, and how long a sync of 8 MiB takes on it. Raises SystemExit for tmpfs."""
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", FOLDER], stdout=subprocess.PIPE, check=True, text=True
    ).stdout.strip()
    if kind == "tmpfs":
        raise SystemExit(f"{FOLDER} is in memory: set TMPDIR to a folder on a disk")
    taken: list[float] = []
    with tempfile.TemporaryFile(dir=FOLDER) as file:
        for _ in range(SYNCS):
            file.write(os.urandom(SYNC_BYTES))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(1e3 * (time.perf_counter() - began))
    return {"file_system": kind, "fdatasync_8_mib_ms": statistics.median(taken), "longest_ms": max(taken)}


def counted_syncs(kind: str, data: Path) -> dict[str, int]:
    """Return the syncs of the server during one upload from memory, or nothing without strace."""
    if shutil.which("strace") is None:
        return {}
    trace = FOLDER / "strace.txt"
    command = ["strace", "-f", "--seccomp-bpf", "-e", "trace=fsync,fdatasync", "-o", str(trace), *serve_command(data)]
    with process(command, FOLDER / "strace.log") as (address, _):
        time.sleep(1.0)
        before = len(trace.read_text().splitlines())
        subprocess.run(send_command("memory", kind, address, "a"), stdout=subprocess.DEVNULL, check=True)
        lines = trace.read_text().splitlines()[before:]
    calls = [re.search(r"(fsync|fdatasync)\(", line) for line in lines]
    names = [call[1] for call in calls if call]
    return {"fsync": names.count("fsync"), "fdatasync": names.count("fdatasync"), "batches": len(messages(kind))}


# --- the table


SIDE_HEADER = ["images", "code", "sent", "images/s", "MB/s", "ratio", "client CPU, µs/image", "server CPU, µs/image"]
WAIT_HEADER = ["images", "code", "health p50, ms", "p99, ms", "longest callback, ms", "syncs", "batches", "peak, MiB"]


def report(cells: Sequence[dict[str, Any]]) -> str:
    """Return all cells as two tables: medians over the rounds."""
    return "\n\n".join(table(rows) for rows in both_tables(cells))


def document(cells: Sequence[dict[str, Any]] | None = None) -> str:
    """Return all cells as the two tables of the page on performance."""
    tables = both_tables(RESULTS.cells() if cells is None else cells)
    return "\n\n".join("\n".join(markdown(rows)) for rows in tables)


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table. The first row is the header."""
    header, *body = [f"| {' | '.join(row)} |" for row in rows]
    return [header, "| " + " | ".join("---" for _ in rows[0]) + " |", *body]


def both_tables(cells: Sequence[dict[str, Any]]) -> tuple[list[list[str]], list[list[str]]]:
    """Return the rows of both tables, the headers included."""
    sides, waits = [SIDE_HEADER], [WAIT_HEADER]
    for cell in sorted(cells, key=lambda cell: (cell["key"]["images"], cell["key"]["code"])):
        name, values = [cell["key"]["images"], cell["key"]["code"]], cell["values"]
        sides += [[*name, NAMES[side], *side_columns(values, side)] for side in SIDES]
        health = [f"{values['health'][key]:.1f}" for key in ("p50_ms", "p99_ms")]
        syncs = sum(values["syncs"].get(key, 0) for key in ("fsync", "fdatasync"))
        counts = [str(syncs), str(values["syncs"].get("batches", 0)), f"{values['server_peak_mib']:.0f}"]
        waits.append([*name, *health, f"{1e3 * values['longest_callback_s']:.0f}", *counts])
    return sides, waits


def side_columns(values: dict[str, Any], side: str) -> list[str]:
    """Return the columns of one side: images/s, MB/s, ratio to echo, and the CPU time of client and server."""
    num_images = values["num_images"]
    seconds, echo = (statistics.median(one["seconds"] for one in values[name]) for name in (side, "echo"))
    cpu = [1e6 * statistics.median(one[f"{end}_cpu_s"] for one in values[side]) for end in ("client", "server")]
    rates = [f"{num_images / seconds:,.0f}", f"{values['num_bytes'] / seconds / 1e6:.0f}", f"{echo / seconds:.2f}"]
    return [*rates, *(f"{one / num_images:.0f}" for one in cpu)]


if __name__ == "__main__":
    main()
