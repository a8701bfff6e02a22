"""Walk a newcomer's first hour with a folder of photographs, each command on a terminal of its own.

The walk measures how long each command takes, and the longest time for which its terminal gets no output, from the
start of the program to its end. The figures of an earlier walk by hand stand beside them: 27 November 2026, two cores
at a load average of 5 to 14, 3,068 photographs.

    python -m benchmarks.first_hour measure --images photographs/
    python -m benchmarks.first_hour report

The folder needs a few hundred photographs, in subfolders that are their labels if there are any.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import Results, table
from benchmarks.terminal_recording import TerminalRecording

RESULTS = Results("first_hour")
PATIENCE_S = 1800.0
PROGRAMS = Path(sys.executable).parent
FIRST_LOSS = re.compile(r"loss +[0-9]")
SMALL_JOB = ("backbone=resnet9", "backbone_width=0.25", "image_size=32")
SERVE, PORT_IN_USE = "serve: an empty directory, until it serves", "a port in use is noticed"
TRAIN, FIRST_LOSS_SHOWN = "train --watch, to the end", "train: until the first loss is on the screen"
BEFORE = {
    SERVE: ("20 s", "20 s"),
    PORT_IN_USE: ("39 s", "39 s"),
    "upload": ("2.6 s", ""),
    "preview, first": ("26 s", "26 s"),
    FIRST_LOSS_SHOWN: ("45 to 75 s, or never", "30 s and more"),
    "embed files, first": ("17 s", "17 s"),
    "embed files, again": ("4.4 s for 341", "4.4 s"),
    "select, first": ("44 s", "44 s"),
    "stop the server": ("2.4 s", ""),
}
"""The time and the longest silence of each step in the earlier walk, where it has them."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the walk."""

    name: str
    took_s: float
    silence_s: float


class Walk:
    """The commands of a newcomer, against a server of their own. `steps` has what was measured."""

    def __init__(self, images: Path, folder: Path, epochs: int) -> None:
        self._images = images
        self._folder = folder
        self._epochs = epochs
        self._address = f"127.0.0.1:{_free_port()}"
        self.steps: list[Step] = []

    def run(self) -> None:
        """Walk from the start of the server to its end. Raises RuntimeError if a command fails."""
        server = self._serve("data")
        self._add(SERVE, server, until_s=server.wait_for(lambda text: '"serving"' in text, PATIENCE_S))
        try:
            self._expect_port_in_use()
            self._use()
        finally:
            began_s = server.now_s
            server.interrupt()
            server.wait(PATIENCE_S)
            self._add("stop the server", server, from_s=began_s)

    def _use(self) -> None:
        some = [str(path) for path in sorted(self._images.rglob("*.jp*g"))[:24]]
        views = self._folder / "views.png"
        self._client("upload", "upload", self._images, "-d", "photographs")
        self._client("preview, first", "preview", *some[:4], "--method", "moco", "-o", views)
        self._client("preview, again", "preview", *some[:4], "--method", "moco", "-o", views)
        self._train()
        for name in ("embed files, first", "embed files, again"):
            self._client(name, "embed", *some, "-m", "first", "-o", self._folder / "rows.npy")
        chosen = self._folder / "chosen.png"
        for name in ("select, first", "select, again"):
            self._client(name, "select", "photographs", "-n", "24", "-m", "first", "-o", chosen)
        self._client("embed the data set", "embed", "-d", "photographs", "-m", "first", "-o", self._folder / "all.npy")
        self._client("duplicates", "duplicates", "photographs", "-d", "0.1", "-m", "first")
        near = self._folder / "near.png"
        self._client("neighbors, with a picture", "neighbors", "photographs", some[0], "-m", "first", "-o", near)

    def _serve(self, data: str) -> TerminalRecording:
        command = ("serve", "--exit-with-parent", "--listen", self._address, "--data", self._folder / data)
        return self._start("manyview-server", *command)

    def _expect_port_in_use(self) -> None:
        second = self._serve("other")
        if second.wait(PATIENCE_S) == 0 or "another process uses this port" not in second.text:
            raise RuntimeError(f"a second server served on the same port: {second.text}")
        self._add(PORT_IN_USE, second)

    def _train(self) -> None:
        settings = [word for setting in SMALL_JOB for word in ("--set", setting)]
        options = ["--method", "moco", "--epochs", self._epochs, "--job-id", "first", "--watch", *settings]
        watched = self._start("manyview", "train", "photographs", *options)
        seen_s = watched.wait_for(lambda text: FIRST_LOSS.search(text) is not None, PATIENCE_S)
        self._add(FIRST_LOSS_SHOWN, watched, until_s=seen_s)
        self._end(TRAIN, watched)

    def _client(self, name: str, *command: object) -> None:
        self._end(name, self._start("manyview", *command))

    def _start(self, program: str, *arguments: object) -> TerminalRecording:
        environment = {**os.environ, "MANYVIEW_TARGET": self._address}
        return TerminalRecording([str(PROGRAMS / program), *map(str, arguments)], environment)

    def _end(self, name: str, run: TerminalRecording) -> None:
        if run.wait(PATIENCE_S):
            raise RuntimeError(f"{name}: {run.text[-2000:]}")
        self._add(name, run)

    def _add(self, name: str, run: TerminalRecording, from_s: float = 0.0, until_s: float | None = None) -> None:
        until_s = run.now_s if until_s is None else until_s
        silence_s = run.longest_silence_s(from_s, until_s)
        self.steps.append(Step(name=name, took_s=round(until_s - from_s, 2), silence_s=round(silence_s, 2)))
        print(f"{name}: {until_s - from_s:.1f} s, longest silence {silence_s:.1f} s", flush=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def measure(images: Path, epochs: int) -> dict[str, Any]:
    """Walk once, in a folder that is deleted afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="first-hour-"))
    walk = Walk(images, folder, epochs)
    try:
        walk.run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    num_images = sum(path.is_file() for path in images.rglob("*"))
    return {"steps": [asdict(step) for step in walk.steps], "files": num_images, "load": round(os.getloadavg()[0], 1)}


def report() -> str:
    """Return the newest walk as a table, beside the earlier one."""
    cells = RESULTS.cells()
    if not cells:
        return "nothing is measured yet"
    values = cells[-1]["values"]
    rows = [["step", "time", "longest silence", "time before", "silence before"]]
    for step in values["steps"]:
        rows.append(
            [step["name"], f"{step['took_s']:.1f} s", f"{step['silence_s']:.1f} s", *BEFORE.get(step["name"], ("", ""))]
        )
    head = f"{values['files']} files, {cells[-1]['machine']}, load average {values['load']}, {cells[-1]['time']}"
    return f"{head}\n\n{table(rows)}"


def main() -> None:
    """Walk once and keep the figures, then print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("measure", "report"))
    parser.add_argument("--images", type=Path, help="folder of photographs")
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.part == "measure":
        if arguments.images is None or not arguments.images.is_dir():
            parser.error("--images must be a folder of photographs")
        values = measure(arguments.images, arguments.epochs)
        RESULTS.add({"images": arguments.images.name, "epochs": arguments.epochs}, values)
    print(report())


if __name__ == "__main__":
    main()
