"""Measure how long views take beside lightly's pipeline of Pillow images: CPU milliseconds per image, on one thread.

A rate is measured on the route that a job takes: images are read from a shard, checked and decoded, or taken from those
that are kept, and become views in the layout of the step. lightly's side opens and converts the same files with Pillow
and applies its transform with the same numbers. The sides take turns, a batch each, in one process with the environment
of a worker. A profile leaves out one change after the other: the difference is its time.

A call measures the next cells. A cell that was measured is not measured again. lightly must be installed, as in the
environment of `make parity`.

    .tools/parity/bin/python -m benchmarks.views measure --images photographs --cells 3
    python -m benchmarks.views report
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.results import Results
from benchmarks.views.report import profile_table, rate_table

from manyview_server.supervise.process import environment

RESULTS = Results("views")
SIDES = {32: 32, 64: 64, 224: 256}
"""The sides of the square JPEGs for each size of view. None: photographs as they are."""
RECIPES = ("simclr", "moco", "dino")


def main() -> None:
    """Measure the next cells, or print all cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("measure", "report", "cells"))
    parser.add_argument("keys", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--images", type=Path, help="a folder of photographs")
    parser.add_argument("--cells", type=int, default=1, help="number of cells to measure; default: %(default)s")
    arguments = parser.parse_args()
    if arguments.part == "cells":
        from benchmarks.views.cell import measure

        for key in json.loads(arguments.keys):
            print(json.dumps(measure(key, arguments.images)), flush=True)
        return
    if arguments.part == "measure":
        if arguments.images is None:
            parser.error("--images is needed to measure")
        missing = [key for key in keys() if RESULTS.find(**key) is None][: arguments.cells]
        measure_all(missing, arguments.images)
    cells = RESULTS.cells()
    print(f"{rate_table(cells)}\n\n{profile_table(cells)}")


def measure_all(keys: list[dict[str, Any]], images: Path) -> None:
    """Measure cells in a process of its own, and store each when it is measured."""
    command = [sys.executable, "-m", "benchmarks.views", "cells", json.dumps(keys), "--images", str(images)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(1)) as process:
        assert process.stdout is not None
        for key, line in zip(keys, process.stdout, strict=False):
            RESULTS.add(key, json.loads(line))
    if process.returncode:
        raise SystemExit(process.returncode)


def keys() -> Iterator[dict[str, Any]]:
    """Yield the keys of all cells. Jobs on this CPU choose bfloat16."""
    rates = [("simclr", size, "bfloat16") for size in reversed(SIDES)]
    rates += [("simclr", size, "float32") for size in reversed(SIDES)]
    rates += [(recipe, size, "bfloat16") for recipe in ("moco", "dino") for size in reversed(SIDES)]
    for recipe, size, precision in rates:
        yield {"part": "rate", "recipe": recipe, "size": size, "side": SIDES[size], "precision": precision}
    yield {"part": "rate", "recipe": "simclr", "size": 224, "side": None, "precision": "bfloat16"}
    for recipe, size in itertools.product(RECIPES, SIDES):
        yield {"part": "profile", "recipe": recipe, "size": size, "side": SIDES[size], "precision": "bfloat16"}


if __name__ == "__main__":
    main()
