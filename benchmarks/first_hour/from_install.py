"""README's commands from `pip install` to a picture of neighbors, in a new environment and from a clean checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.first_hour.steps import Steps
from benchmarks.first_hour.walk import free_address

ROOT = Path(__file__).parent.parent.parent
INSTALL, ENVIRONMENT = 'pip install ".[server]"', "python3 -m venv"
NUM_QUERIES = 6
ADDED_BY_ENVIRONMENTS = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")


class FromInstall:
    """The way of a newcomer from a checkout to a picture. `steps` has what was measured."""

    def __init__(self, images: Path, folder: Path, time: str) -> None:
        self._images = images
        self._folder = folder
        self._time = time
        self._address = free_address()
        self._checkout = folder / "manyview"
        self.picture = folder / "near.png"
        kept = {name: value for name, value in os.environ.items() if name not in ADDED_BY_ENVIRONMENTS}
        self.steps = Steps(folder / "venv" / "bin", {**kept, "MANYVIEW_TARGET": self._address})

    def run(self) -> None:
        """Walk from the installation to the picture. Raises RuntimeError if a command fails."""
        subprocess.run(["git", "clone", "--quiet", ROOT, self._checkout], check=True)
        python = Path(sys.base_prefix, "bin", "python3")
        self.steps.run(ENVIRONMENT, str(python), "-m", "venv", self._folder / "venv")
        self.steps.run(INSTALL, "pip", "install", ".[server]", folder=self._checkout)
        self.steps.run("manyview --version", "manyview", "--version")
        listen = ("--listen", self._address, "--data", self._folder / "data")
        with self.steps.server("manyview-server serve, until it serves", *listen):
            self._use()

    def _use(self) -> None:
        self.steps.run("manyview upload", "manyview", "upload", self._images, "--dataset", "photographs")
        train = ("train", "photographs", "--method", "simclr", "--time", self._time, "--job-id", "first", "--watch")
        self.steps.run(f"manyview train --time {self._time} --watch", "manyview", *train)
        queries = [word for key in self._queries() for word in ("--key", key)]
        show = ("neighbors", "photographs", *queries, "--model", "first", "--out", self.picture)
        self.steps.run("manyview neighbors --out", "manyview", *show)

    def _queries(self) -> list[str]:
        """Return the keys of some photographs, spread evenly over the folder."""
        keys = sorted(path.relative_to(self._images).as_posix() for path in self._images.rglob("*.jp*g"))
        return keys[len(keys) // (2 * NUM_QUERIES) :: max(1, len(keys) // NUM_QUERIES)][:NUM_QUERIES]
