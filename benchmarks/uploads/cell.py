"""One cell: all sides in turns, and what a server says about them."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.loop import percentile, probing
from benchmarks.uploads import bare_work, plain_stream
from benchmarks.uploads.cpu_time import cpu_s, cpu_s_of
from benchmarks.uploads.images import FOLDER, NUM_IMAGES, messages, num_bytes, read_images

import manyview

SIDES = ("echo", "memory", "folder", "bare")
SYNCS, SYNC_BYTES = 30, 8 << 20


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
    if side == "bare":
        return taken
    taken["server_cpu_s"] = cpu_s_of(pid) - before
    if side != "echo":
        with manyview.Client(address) as client:
            client.delete_dataset("sent")
    return taken


def send(side: str, kind: str, address: str, dataset: str) -> dict[str, Any]:
    """Send all images to a server once, and return the wall time and the CPU time of this process."""
    if side == "bare":
        return bare_work.work(kind)
    if side == "echo":
        return asyncio.run(plain_stream.send(address, messages(kind)))
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
