"""Compare manyview's embedding service with mosec, LitServe, BentoML and Ray Serve on this machine's CPU.

All sides serve the same ResNet-18 from the same JPEG files, decoded at their full size by simplejpeg and resized by the
same function of torch, to 64 or 224 pixels. Callers send one image and wait for its row before they send the next one.
Users of manyview call through its client; the peers are called over HTTP with aiohttp. A peer serves float32 as
torchvision builds the network, or bfloat16 in channels_last, with the batching that was best for it in the sweep.

A cell is a server of one side, called by 1, 8, 32 and 128 callers in turn: about a minute. A call measures the next
cells; a stored cell is not measured again.

    python -m benchmarks.peers install                        # environments of the peers
    python -m benchmarks.peers sweep --images clothing        # the next trial of batching
    python -m benchmarks.peers measure --images clothing --cells 5
    python -m benchmarks.peers report
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.peers.load import Level, Load
from benchmarks.peers.plan import MANYVIEW, STUBS, Batching, Key
from benchmarks.peers.report import report
from benchmarks.peers.servers import serving
from benchmarks.peers.usage import await_quiet
from benchmarks.results import Results

from benchmarks.peers import environments, model_files, plan

RESULTS = Results("peers")
SIDES = (MANYVIEW, *plan.PEERS)
FOLDER = environments.ROOT / "bench-data" / "peers"
NOTHING_LEFT = 3
"""The exit status if all cells were measured before."""
LOWEST_COSINE = 0.99
LOAD_S = 300
QUIET_S = 5.0
"""The longest wait for other programs before a cell."""
ONE_ROUND_TRIP_S = {64: 2.0, 224: 5.0}
"""Longer than an answer takes beside the most callers, so that the queue of a server is full when it is measured."""


def main() -> None:
    """Install, or measure the next cells, then print all cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("install", "sweep", "measure", "report"))
    parser.add_argument("--images", type=Path, help="a folder of JPEG files")
    parser.add_argument("--cells", type=int, default=1, help="number of cells to measure; default: %(default)s")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no cell later; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=plan.ROUNDS, help="rounds of cells; default: %(default)s")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--formats", nargs="+", choices=plan.NUMBER_FORMATS, default=plan.NUMBER_FORMATS)
    parser.add_argument("--stubs", action="store_true", help="measure manyview's stubs instead")
    parser.add_argument("--seconds", type=float, default=8.0, help="time of each measurement; default: %(default)s")
    arguments = parser.parse_args()
    # Without this, a program that is terminated leaves the server that it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    if arguments.command == "install":
        for peer in plan.PEERS:
            environments.install(peer)
        return
    if arguments.command != "report":
        if arguments.images is None:
            parser.error("--images is needed to measure")
        measure_next(arguments)
    print(report(RESULTS.cells()))


def measure_next(arguments: argparse.Namespace) -> None:
    """Measure the next cells. Exit with `NOTHING_LEFT` if there are none."""
    if arguments.command == "sweep":
        keys = plan.sweep_keys()
    elif arguments.stubs:
        keys = plan.round_keys((STUBS,), tuple(arguments.formats), arguments.rounds)
    else:
        keys = plan.round_keys(tuple(arguments.sides), tuple(arguments.formats), arguments.rounds)
    waiting = list(itertools.islice((key for key in keys if RESULTS.find(**key) is None), arguments.cells))
    if not waiting:
        sys.exit(NOTHING_LEFT)
    prepare(FOLDER, arguments.images)
    deadline = time.monotonic() + 60 * arguments.minutes
    for key in itertools.takewhile(lambda _: time.monotonic() < deadline, waiting):
        await_quiet(QUIET_S)
        RESULTS.add(key, measure(key, arguments.images, arguments.seconds))


def prepare(folder: Path, images: Path) -> None:
    """Make the models that are missing. Importing torch takes seconds, and the report does not need it."""
    from benchmarks.peers import models

    models.prepare(folder, images)


def measure(key: Key, images: Path, seconds: float) -> dict[str, Any]:
    """Measure a cell."""
    size, number_format, side = key["image_size"], key.get("number_format", "float32"), key["side"]
    if key["part"] == "sweep":
        batching: Batching | None = Batching(**key["batching"])
        counts: tuple[int, ...] = plan.SWEPT_CALLERS
    else:
        counts = plan.CALLERS
        batching = None
        if side in plan.PEERS:
            batching = plan.best_batching(RESULTS.cells(), side, size)
            if batching is None:
                sys.exit(f"measure the batching of {side} first: python -m benchmarks.peers sweep")
    with serving(side, FOLDER, size, number_format, batching) as server:
        load = Load(
            side=side,
            address=server.address,
            model=server.model,
            server_pid=server.pid,
            images=str(images.resolve()),
            expected=str(model_files.expected(FOLDER, size, number_format)),
            levels=[level(count, size, seconds) for count in counts],
        )
        values = called(side, load)
    if not values["lowest_cosine"] >= LOWEST_COSINE:
        sys.exit(f"{side} answers with other rows than manyview: the lowest cosine is {values['lowest_cosine']:.4f}")
    return {**values, "batching": asdict(batching) if batching else None}


def level(callers: int, image_size: int, seconds: float) -> Level:
    """Return a level whose warm-up fills the queue of the server."""
    warm_up_s = 1.0 if callers < 32 else ONE_ROUND_TRIP_S[image_size] * callers / 128 + 1
    return Level(callers=callers, warm_up_s=warm_up_s, measured_s=seconds)


def called(side: str, load: Load) -> dict[str, Any]:
    """Call a server from a process in the environment of its side, and return what that printed."""
    interpreter = sys.executable if side not in plan.PEERS else str(environments.python(side))
    command = [interpreter, "-m", "benchmarks.peers.load", load.to_json()]
    with tempfile.TemporaryFile() as errors:
        done = subprocess.run(
            command, cwd=environments.ROOT, stdout=subprocess.PIPE, stderr=errors, timeout=LOAD_S, check=False
        )
        errors.seek(0)
        if done.returncode != 0:
            sys.exit(f"calling {side} failed:\n{errors.read().decode(errors='replace')[-3000:]}")
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


if __name__ == "__main__":
    main()
