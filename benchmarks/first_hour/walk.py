"""The commands of a newcomer's hour, with a job of a minute, in the environment that runs the benchmark."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path

from benchmarks.first_hour.steps import PATIENCE_S, Steps

PROGRAMS = Path(sys.executable).parent
FIRST_LOSS = re.compile(r"loss +[0-9]")
SMALL_JOB = ("backbone=resnet9", "backbone_width=0.25", "image_size=32")
SERVE, PORT_IN_USE = "serve: an empty directory, until it serves", "a port in use is noticed"
TRAIN, FIRST_LOSS_SHOWN = "train --watch, to the end", "train: until the first loss is on the screen"


class Walk:
    """The commands of a newcomer, against a server of their own. `steps` has what was measured."""

    def __init__(self, images: Path, folder: Path, epochs: int) -> None:
        self._images = images
        self._folder = folder
        self._epochs = epochs
        self._address = free_address()
        self.steps = Steps(PROGRAMS, {**os.environ, "MANYVIEW_TARGET": self._address})

    def run(self) -> None:
        """Walk from the start of the server to its end. Raises RuntimeError if a command fails."""
        with self.steps.server(SERVE, *self._serving("data")):
            self._expect_port_in_use()
            self._use()

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

    def _serving(self, data: str) -> tuple[object, ...]:
        return "--listen", self._address, "--data", self._folder / data

    def _expect_port_in_use(self) -> None:
        second = self.steps.start("manyview-server", "serve", *self._serving("other"))
        if second.wait(PATIENCE_S) == 0 or "another process uses this port" not in second.text:
            raise RuntimeError(f"a second server served on the same port: {second.text}")
        self.steps.add(PORT_IN_USE, second)

    def _train(self) -> None:
        settings = [word for setting in SMALL_JOB for word in ("--set", setting)]
        options = ["--method", "moco", "--epochs", self._epochs, "--job-id", "first", "--watch", *settings]
        watched = self.steps.start("manyview", "train", "photographs", *options)
        seen_s = watched.wait_for(lambda text: FIRST_LOSS.search(text) is not None, PATIENCE_S)
        self.steps.add(FIRST_LOSS_SHOWN, watched, until_s=seen_s)
        self.steps.end(TRAIN, watched)

    def _client(self, name: str, *command: object) -> None:
        self.steps.run(name, "manyview", *command)


def free_address() -> str:
    """Return an address of this machine that no server uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
