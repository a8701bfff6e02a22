"""Measure a cell, or print all of them.

python -m benchmarks.subscribers measure --pinned
python -m benchmarks.subscribers report
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from benchmarks.results import Results
from benchmarks.subscribers.phases import WINDOW_S, Phases
from benchmarks.subscribers.report import costs, report
from benchmarks.subscribers.stage import Stage, prepare

RESULTS = Results("subscribers")


def main() -> None:
    """Measure one cell unless it was measured, then print all cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("measure", "cost", "report"))
    parser.add_argument("--release", default="now", help="a name for the version of the server")
    parser.add_argument("--pinned", action="store_true", help="the trainer has one core, all others the other one")
    parser.add_argument("--subscribers", type=int, default=500)
    parser.add_argument("--events", type=int, default=100_000, help="the length of the log at the start")
    parser.add_argument("--log-every-steps", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--window-s", type=float, default=WINDOW_S)
    parser.add_argument("--only", choices=("live", "replay"), help="leave the other phases out")
    parser.add_argument("--spin", action="store_true", help="also measure beside a loop, without subscribers")
    parser.add_argument("--catalogue", type=Path, help="catalogue.json of a data directory: the server starts sooner")
    parser.add_argument("--try", dest="trying", action="store_true", help="print the cell, and do not store it")
    arguments = parser.parse_args()
    cells = RESULTS.cells()
    if arguments.part == "measure":
        key = {
            "part": "phases",
            "release": arguments.release,
            "cores": "one for the trainer" if arguments.pinned else "two for all",
            "subscribers": arguments.subscribers,
            "events": arguments.events,
            "log_every_steps": arguments.log_every_steps,
        }
        if arguments.trying:
            cells = [{"key": key, "values": measure(arguments)}]
        elif RESULTS.find(**key) is None:
            RESULTS.add(key, measure(arguments))
            cells = RESULTS.cells()
    if arguments.part == "cost":
        key = {"part": "cost", "release": arguments.release, "subscribers": arguments.subscribers}
        if arguments.trying:
            cells = [{"key": key, "values": cost(arguments)}]
        elif RESULTS.find(**key) is None:
            RESULTS.add(key, cost(arguments))
            cells = RESULTS.cells()
    print(f"{costs(cells)}\n\n{report(cells)}")


def cost(arguments: argparse.Namespace) -> dict[str, object]:
    """Return what the subscribers cost the server alone: its job is paused, and it logs ten events a second itself."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(prepare(folder / "data", events=arguments.events, log_every_steps=1, paused=True))
        stage = Stage(folder, tick_s=0.1, catalogue=arguments.catalogue)
        try:
            phases = Phases(stage, folder, subscribers=arguments.subscribers, pinned=False, window_s=arguments.window_s)
            for _ in range(arguments.rounds):
                phases.silent()
                phases.live()
                phases.replay()
        finally:
            stage.stop()
        return phases.values()


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the windows, the latencies and what the subscribers saw."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(prepare(folder / "data", events=arguments.events, log_every_steps=arguments.log_every_steps))
        stage = Stage(folder, pinned=arguments.pinned, catalogue=arguments.catalogue)
        try:
            phases = Phases(
                stage,
                folder,
                subscribers=arguments.subscribers,
                pinned=arguments.pinned,
                window_s=arguments.window_s,
            )
            for _ in range(arguments.rounds):
                if arguments.only != "replay":
                    phases.silent()
                    phases.live()
                if arguments.only != "live":
                    phases.silent()
                    phases.replay()
                if arguments.spin:
                    phases.silent()
                    phases.spin()
            phases.silent()
        finally:
            stage.stop()
        return phases.values()


if __name__ == "__main__":
    main()
