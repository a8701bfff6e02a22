"""Walk a newcomer's first hour, or the way from the installation to a picture, and print what it took.

    python -m benchmarks.first_hour measure --images photographs/
    python -m benchmarks.first_hour install --images photographs/ --picture near.png
    python -m benchmarks.first_hour report

The folder needs a few hundred photographs, in subfolders that are their labels if there are any.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.first_hour.from_install import FromInstall
from benchmarks.first_hour.report import report
from benchmarks.first_hour.walk import Walk
from benchmarks.results import Results

RESULTS = Results("first_hour")


def measure(images: Path, arguments: argparse.Namespace) -> None:
    """Walk once, in a folder that is deleted afterwards, and keep the figures."""
    folder = Path(tempfile.mkdtemp(prefix="first-hour-"))
    key: dict[str, Any] = {"part": arguments.part, "images": images.name}
    load = os.getloadavg()[0]
    try:
        walk: Walk | FromInstall
        if arguments.part == "install":
            key["time"] = arguments.time
            walk = FromInstall(images, folder, arguments.time)
        else:
            key["epochs"] = arguments.epochs
            walk = Walk(images, folder, arguments.epochs)
        walk.run()
        if arguments.picture is not None and isinstance(walk, FromInstall):
            shutil.copy(walk.picture, arguments.picture)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    num_images = sum(path.is_file() for path in images.rglob("*"))
    RESULTS.add(key, {"steps": walk.steps.taken, "files": num_images, "load": round(load, 1)})


def main() -> None:
    """Walk once and keep the figures, then print the newest ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("measure", "install", "report"))
    parser.add_argument("--images", type=Path, help="folder of photographs")
    parser.add_argument("--epochs", type=int, default=2, help="measure: length of its job; default: %(default)s")
    parser.add_argument("--time", default="4m", help="install: the time for its job; default: %(default)s")
    parser.add_argument("--picture", type=Path, help="install: keep the picture as this file (.png)")
    arguments = parser.parse_args()
    if arguments.part != "report":
        if arguments.images is None or not arguments.images.is_dir():
            parser.error("--images must be a folder of photographs")
        measure(arguments.images.resolve(), arguments)
    print(report(RESULTS.cells()))


if __name__ == "__main__":
    main()
