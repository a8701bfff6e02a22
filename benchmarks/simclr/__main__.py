"""Measure SimCLR from JPEG files: a job over gRPC beside lightly 1.5.26 as it is shipped, and beside lightly tuned.

All sides train the same network on the same photographs with the same recipe of views, in the same batches. A round has
one turn of each side, in a process of its own. In the first round the bare network (forward and backward) follows each
turn. lightly runs with the number of workers, the threads and the environment that were fastest for it in the trials.
Its tuned side has channels_last and autocast, too. Jobs choose bfloat16 on CPUs that compute in it, and float32 on all
others, so the sides are measured in both.

A call measures the next cells. A cell that was measured is not measured again. lightly must be installed, as in the
environment of `make parity`. A round takes four to six minutes on two cores, and the trials of a network as long.

    .tools/parity/bin/python -m benchmarks.simclr trials --images photographs --minutes 7   # some of lightly's settings
    .tools/parity/bin/python -m benchmarks.simclr measure --images photographs              # the next round
    python -m benchmarks.simclr report
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.results import Results
from benchmarks.simclr.plan import (
    ROUNDS,
    TRAININGS,
    Key,
    Setting,
    Side,
    Training,
    best_setting,
    photographs,
    round_key,
    sides,
    trial_keys,
)
from benchmarks.simclr.report import report

RESULTS = Results("simclr")
TURN_S = 600
DRY: dict[str, Any] = {"batch_size": 4, "steps_per_epoch": 2, "epochs": 1, "warm_up": 1, "trial_steps": 1}
"""The changes of a dry run."""


def main() -> None:
    """Measure the next cells, then print all cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("trials", "measure", "report"))
    parser.add_argument("--images", type=Path, help="a folder of photographs")
    parser.add_argument("--network", choices=TRAININGS, help="measure only this network")
    parser.add_argument("--cells", type=int, help="number of cells to measure; default: one round, or all trials")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no cell later; default: %(default)s")
    parser.add_argument("--dry", action="store_true", help="run one short round, and store nothing")
    arguments = parser.parse_args()
    # Without this, a program that is terminated leaves the process of the turn.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    if arguments.part != "report":
        if arguments.images is None:
            parser.error("--images is needed to measure")
        trainings = [one for name, one in TRAININGS.items() if arguments.network in (None, name)]
        if arguments.dry:
            for training in trainings:
                print(json.dumps(dry_round(training, arguments.images), indent=1))
            return
        most = arguments.cells or (1 if arguments.part == "measure" else None)
        keys = itertools.islice(waiting(arguments.part, trainings), most)
        until = time.monotonic() + 60 * arguments.minutes
        for key in itertools.takewhile(lambda _: time.monotonic() < until, keys):
            RESULTS.add(key, measure(key, arguments.images))
    print(report(RESULTS.cells()))


def waiting(part: str, trainings: list[Training]) -> Iterator[Key]:
    """Yield the keys of the cells that are not measured yet. The trainings take turns in the rounds."""
    if part == "trials":
        keys = (key for one in trainings for key in trial_keys(one, fast_bfloat16()))
    else:
        keys = (round_key(one, number) for number in range(ROUNDS) for one in trainings)
    return (key for key in keys if RESULTS.find(**key) is None)


def measure(key: Key, images: Path) -> dict[str, Any]:
    """Measure a cell. A round tries the settings of lightly first that were not tried."""
    training = TRAININGS[key["network"]]
    if key["part"] == "trial":
        setting = Setting(**key["setting"])
        return peer_turn(training, setting, images, warm_up=min(training.warm_up, 3), steps=training.trial_steps)
    for trial in trial_keys(training, fast_bfloat16()):
        if RESULTS.find(**trial) is None:
            RESULTS.add(trial, measure(trial, images))
    settings: dict[Side, Setting] = {}
    for side in sides(fast_bfloat16()):
        best = None if side.is_job else best_setting(RESULTS.cells(), training, side)
        if best is not None:
            settings[side] = best
    return one_round(training, settings, images, networks=key["round"] == 0)


def dry_round(training: Training, images: Path) -> dict[str, Any]:
    """Make a short round with the first setting of each side."""
    keys = list(trial_keys(training, fast_bfloat16()))
    first = {
        side: Setting(**next(key for key in keys if is_of(key, side))["setting"])
        for side in sides(fast_bfloat16())
        if not side.is_job
    }
    return one_round(replace(training, **DRY), first, images, networks=True)


def is_of(key: Key, side: Side) -> bool:
    """Is this the key of a trial for the side?"""
    return bool(key["side"] == side.name and key["setting"]["precision"] == side.precision)


def one_round(training: Training, settings: dict[Side, Setting], images: Path, *, networks: bool) -> dict[str, Any]:
    """Give each side a turn, and return what they took, with what was the same for all of them."""
    turns: list[dict[str, Any]] = []
    for side in sides(fast_bfloat16()):
        setting = settings.get(side)
        if setting is None:
            values = job_turn(training, side, images)
        else:
            values = peer_turn(training, setting, images, warm_up=training.warm_up, steps=training.steps)
        values |= network(training, side, setting, images) if networks else {}
        turns.append({**asdict(side), "setting": setting and asdict(setting), **values})
        print(json.dumps(turns[-1]), file=sys.stderr, flush=True)
    return {"training": asdict(training), "turns": turns}


def job_turn(training: Training, side: Side, images: Path) -> dict[str, Any]:
    """Train with a server that has the environment of a user."""
    from benchmarks.simclr import job

    return dict(job.turn(training, side.precision, photographs(images, training.num_images), plain_environment()))


def peer_turn(training: Training, setting: Setting, images: Path, *, warm_up: int, steps: int) -> dict[str, Any]:
    """Train with lightly."""
    wanted = {"training": asdict(training), "setting": asdict(setting), "warm_up": warm_up, "steps": steps}
    return printed("peer", wanted, images, environment_of(setting))


def network(training: Training, side: Side, setting: Setting | None, images: Path) -> dict[str, Any]:
    """Measure the bare network of a side, in the same environment as its steps."""
    wanted = {"training": asdict(training), "side": asdict(side), "setting": setting and asdict(setting)}
    return printed("network", wanted, images, environment_of(setting))


def printed(module: str, wanted: dict[str, Any], images: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Return what a process of its own prints."""
    command = [sys.executable, "-m", f"benchmarks.simclr.{module}", json.dumps(wanted), str(images)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TURN_S, env=environment, check=False)
    if done.returncode != 0:
        sys.exit(f"{module} failed:\n{done.stderr[-2000:]}")
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


def environment_of(setting: Setting | None) -> dict[str, str]:
    """Return the environment of a worker for our side, and that of a user with what the setting adds for lightly."""
    from manyview_server.supervise.cores import available_cores
    from manyview_server.supervise.process import environment

    worker = environment(available_cores())
    if setting is None:
        return worker
    added = {name: worker[name] for name in worker if setting.kept_heap and name.startswith("MALLOC_")}
    added |= {"OMP_WAIT_POLICY": "passive"} if setting.asleep else {}
    added |= {"OMP_NUM_THREADS": str(setting.threads)} if setting.threads else {}
    return plain_environment() | added


def plain_environment() -> dict[str, str]:
    """Return the environment without the settings of threads and of memory, as a user has it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MALLOC_"))}


def fast_bfloat16() -> bool:
    """Does this CPU compute in bfloat16 itself? The import of torch takes a second, and the report does not need it."""
    import torch

    from manyview_server.worker.precision import has_fast_bfloat16

    return has_fast_bfloat16(torch.device("cpu"))


if __name__ == "__main__":
    main()
