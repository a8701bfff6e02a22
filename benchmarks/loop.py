"""Measure how long the health call waits while a server answers its largest requests.

A real server is sent the largest request of each rpc that it accepts, and a hostile one that it must refuse (see
`largest_requests`), three times each. Another process calls `grpc.health.v1.Health/Check` every few milliseconds
during that time. The table shows, for each request, how long these calls took. The goal is a 99th percentile under
100 ms on two quiet cores.

    python -m benchmarks.loop
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from benchmarks.largest_requests import METHODS, Case, World, cases, large_ppm, ppm, send
from benchmarks.results import Results, table

import manyview

RESULTS = Results("loop")
GOAL_MS = 100
EVERY_S = 0.005
ROUNDS = 3
CALL_S = 300.0
NUM_IMAGES, NUM_JOBS = 1_500, 40
MODEL = "backbones/resnet9"
METHOD = "dino"
"""A method that takes any number of smaller views."""
OPTIONS = [("grpc.max_receive_message_length", 64 << 20)]
JOB = {
    "backbone": "resnet9",
    "backbone_width": 0.125,
    "image_size": 16,
    "batch_size": 64,
    "precision": "float32",
    "memory_format": "contiguous",
    "log_every_steps": 1,
    "evaluation": {"knn_every_epochs": 0},
}


@dataclass(frozen=True, kw_only=True)
class Health:
    """One health call: its start, and how long it took."""

    began: float
    ms: float


def main() -> None:
    """Measure, print the table, and save it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    if arguments.probe:
        probe(arguments.probe)
        return
    with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "data") as address:
        rows, every = measured(address, Path(folder), arguments.rounds)
    values = {
        "health_p50_ms": percentile(every, 50),
        "health_p99_ms": percentile(every, 99),
        "health_max_ms": percentile(every, 100),
        "goal_ms": GOAL_MS,
        "requests": rows,
    }
    RESULTS.add({"part": "largest requests", "load": round(os.getloadavg()[0], 1)}, values)
    header = ["rpc", "request", "MB", "answer", "s", "health p50 ms", "p99", "max", "calls"]
    print(table([header, *([str(value) for value in row.values()] for row in rows)]))
    print(f"\nhealth beside all: p50 {values['health_p50_ms']} ms, p99 {values['health_p99_ms']} ms, ", end="")
    print(f"max {values['health_max_ms']} ms, of {len(every)} calls; load {os.getloadavg()[0]:.1f}")


def measured(address: str, folder: Path, rounds: int) -> tuple[list[dict[str, Any]], list[Health]]:
    """Return a row for each request, and all health calls that ran beside one."""
    world = filled(address, folder)
    every = list(cases(world))
    missing = set(METHODS) - {case.method for case in every}
    if missing:
        raise SystemExit(f"largest_requests has no case for {sorted(missing)}")
    spans: list[tuple[Case, float, float, str]] = []
    with probing(address) as health, grpc.insecure_channel(address, options=OPTIONS) as channel:
        for case in every * rounds:
            began = time.monotonic()
            status = send(channel, case, CALL_S)
            spans.append((case, began, time.monotonic(), status))
            print(
                f"{case.method} {case.label}: {status}, {time.monotonic() - began:.2f} s", file=sys.stderr, flush=True
            )
            time.sleep(0.2)
    beside = [
        call for call in health if any(ended >= call.began >= began - call.ms / 1000 for _, began, ended, _ in spans)
    ]
    rows = []
    for case in every:
        own = [span for span in spans if span[0] is case]
        calls = [c for c in health if any(end >= c.began >= begin - c.ms / 1000 for _, begin, end, _ in own)]
        rows.append(
            {
                "rpc": case.method,
                "request": case.label,
                "mb": round(case.num_bytes / 1e6, 2),
                "answer": own[0][3],
                "s": round(float(np.median([end - begin for _, begin, end, _ in own])), 2),
                "p50": percentile(calls, 50),
                "p99": percentile(calls, 99),
                "max": percentile(calls, 100),
                "calls": len(calls),
            }
        )
    return rows, beside


def percentile(calls: Sequence[Health], share: float) -> float:
    """Return a percentile of the calls in milliseconds, or 0 without calls."""
    return round(float(np.percentile([call.ms for call in calls], share)), 1) if calls else 0.0


def filled(address: str, folder: Path) -> World:
    """Fill the server with images, a short job with a log, and many jobs with the largest configurations."""
    with manyview.Client(address) as client:
        client.upload([ppm(number, 192) for number in range(NUM_IMAGES)], "many", labels=None)
        (folder / "large.ppm").write_bytes(large_ppm())
        client.upload([folder / "large.ppm"], "many")
        client.train("many", "simclr", job_id="short", epochs=4, config=JOB).wait(timeout_s=600)
        largest = largest_config(client)
        for number in range(NUM_JOBS):
            client.train("many", METHOD, job_id=f"largest{number}", config=largest).cancel()
        stored = list(client.images("many"))
        large = max(stored, key=lambda image: image.num_bytes)
    return World(
        dataset="datasets/many",
        image_ids=[image.image_id for image in stored],
        large_key=large.key,
        job="trainJobs/short",
        model=MODEL,
        method=METHOD,
        config=largest,
    )


def largest_config(client: manyview.Client) -> dict[str, Any]:
    """Return a configuration of 64 pipelines with every field given, and 64 more votes of the nearest neighbors."""
    plain = client.resolve_config("many", METHOD)["views"]["pipelines"][0]
    pipelines = [
        {
            **plain,
            "count": 1,
            "size_fraction": 1 if index < 2 else 0.5,
            "blur": {**plain["blur"], "probability": index / 64},
        }
        for index in range(64)
    ]
    votes = [{"k": 1 + index, "temperature": 0.1} for index in range(64)]
    return {**JOB, "image_size": 64, "views": {"pipelines": pipelines}, "evaluation": {"knn_more": votes}}


@contextmanager
def server(data: Path) -> Iterator[str]:
    """Start a private server, and yield its address."""
    command = [sys.executable, "-m", "manyview_server", "serve", "--listen", "127.0.0.1:0", "--data", str(data)]
    log = data.with_suffix(".log")
    with log.open("ab") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(log.read_text()[-2000:])
        try:
            yield json.loads(line)["address"]
        finally:
            process.terminate()
            process.wait(60)
            print([text for text in log.read_text().splitlines() if "longest callback" in text][-1:], file=sys.stderr)


@contextmanager
def probing(address: str) -> Iterator[list[Health]]:
    """Make health calls from another process. The list is filled at the end."""
    found: list[Health] = []
    command = [sys.executable, "-m", "benchmarks.loop", "--probe", address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()  # it has started
        try:
            yield found
        finally:
            out, _ = process.communicate("stop\n", timeout=60)
            found += [Health(began=began, ms=ms) for began, ms in map(json.loads, out.splitlines())]


def probe(address: str) -> None:
    """Call health until a line comes in; then print what was measured."""
    found: list[tuple[float, float]] = []
    os.set_blocking(sys.stdin.fileno(), False)
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)
        call(b"", timeout=60)
        print("begun", flush=True)
        while not sys.stdin.readline():
            began = time.monotonic()
            call(b"", timeout=120)
            found.append((began, 1000 * (time.monotonic() - began)))
            time.sleep(EVERY_S)
    for one in found:
        print(json.dumps(one))


if __name__ == "__main__":
    main()
