"""Search the recipe that learns most from a few thousand photographs in ten minutes of CPU time.

Two sets of images: photographs of clothing (ten classes), and patches of other photographs, which `photographs`
cuts from pictures in Debian packages. A cell trains a recipe through the trainer's own code, with one thread and a
budget of CPU seconds, and measures kNN of held-out images, beside raw pixels. One call measures the next cells; a
stored cell is not measured again. `search` measures short trainings with one seed, `table` ten minutes of the defaults
with three seeds, and `report` prints what is stored.

    python -m benchmarks.recipes.photographs --packages DIR --out photographs
    python -m benchmarks.recipes search --clothing clothing --photographs photographs
    python -m benchmarks.recipes table --clothing clothing --photographs photographs --cells 4
    python -m benchmarks.recipes report
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.recipes.recipes import RECIPES, search_keys, table_keys
from benchmarks.recipes.report import report
from benchmarks.results import Results

from benchmarks.recipes import images, training

RESULTS = Results("recipes")
NOTHING_LEFT = 3
"""The exit status if all cells were measured before."""


def main() -> None:
    """Measure the next cells, then print all cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("search", "table", "report"))
    for kind in ("clothing", "photographs"):
        parser.add_argument(f"--{kind}", type=Path, help="folder with train/CLASS/* and validation/CLASS/*")
    parser.add_argument("--cells", type=int, default=1, help="number of cells to measure; default: %(default)s")
    parser.add_argument(
        "--precision",
        choices=("auto", "bfloat16", "float32"),
        default="auto",
        help="number format; auto times the formats, and other load may mislead it; default: %(default)s",
    )
    arguments = parser.parse_args()
    if arguments.command != "report":
        folders = {kind: folder for kind in ("clothing", "photographs") if (folder := getattr(arguments, kind))}
        if not folders:
            parser.error("--clothing, --photographs or both are needed to measure a cell")
        keys = (search_keys if arguments.command == "search" else table_keys)(list(folders))
        waiting = list(itertools.islice((key for key in keys if RESULTS.find(**key) is None), arguments.cells))
        for key in waiting:
            RESULTS.add(key, measure(folders[key["images"]], key, arguments.precision))
        if not waiting:
            sys.exit(NOTHING_LEFT)
    print(report(RESULTS.cells()))


def measure(folder: Path, key: dict[str, Any], precision: str) -> dict[str, Any]:
    """Measure a cell, and return its values."""
    recipe = RECIPES[key["recipe"]]
    with tempfile.TemporaryDirectory() as directory:
        stored = images.store(folder, Path(directory) / "dataset")
        config = {**recipe.config, "seed": key["seed"], "precision": precision}
        return training.measure(stored, recipe.method, config, key["cpu_s"], Path(directory))


if __name__ == "__main__":
    main()
