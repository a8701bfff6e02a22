"""The container as an operator runs it: docker-compose.yml, under a project, a port and a volume of a test's own.

Nothing here starts an engine. Without one, the tests are skipped and say so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import manyview
from support.service.harness import free_port, wait_until
from support.soak.rounds import soaking

ROOT = Path(__file__).parents[3]
IMAGE = "manyview:image-test"
"""Stays, as the cache of the next run."""
BUILD_S = 1800.0
COMMAND_S = 120.0
HEALTHY_S = 120.0


def require_compose() -> None:
    """Skip where there is no `docker compose`, which reads files without an engine."""
    _skip_for(_missing("docker", "compose", "version"))


def require_engine() -> None:
    """Skip where `docker compose` reaches no engine."""
    require_compose()
    _skip_for(_missing("docker", "info"))


def _skip_for(reason: str) -> None:
    if reason and soaking():
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@cache
def _missing(*command: str) -> str:
    words = " ".join(command)
    if shutil.which(command[0]) is None:
        return f"`{words}` is needed: there is no {command[0]} here"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return f"`{words}` is needed: it does not answer"
    return "" if done.returncode == 0 else f"`{words}` is needed: {done.stderr.strip()[-300:]}"


def config(*files: str, **variables: str) -> dict[str, Any]:
    """The configuration that Compose makes of these files, after its own check."""
    read: dict[str, Any] = json.loads(_run(_command(files, "config", "--format", "json"), environment=variables))
    return read


class Compose:
    """One project. `up` as often as needed; `remove` at the end takes container, network and volume away."""

    def __init__(self, name: str, folder: Path, image: str = IMAGE) -> None:
        """`folder`: where copies of the container's data may lie."""
        self.name = name
        self.folder = folder
        self.image = image
        self.address = f"127.0.0.1:{free_port()}"
        self._variables = {
            "COMPOSE_PROJECT_NAME": name,
            "MANYVIEW_IMAGE": image,
            "MANYVIEW_PORT": self.address.rpartition(":")[2],
        }
        self._files = ["docker-compose.yml"]
        self._for_now: dict[str, str] = {}

    def build(self, *files: str) -> None:
        """Make the image, with `files` beside docker-compose.yml; seconds where nothing has changed."""
        self._files = ["docker-compose.yml", *files]
        self.compose("build", "--quiet", timeout_s=BUILD_S)

    def image_bytes(self) -> int:
        """The size of the image on the disk, all layers together."""
        return int(_run(["docker", "image", "inspect", "--format", "{{.Size}}", self.image]))

    def run_once(self, *command: str) -> str:
        """A command in a container of its own, without devices and without the server; what it printed."""
        name, *arguments = command
        return _run(["docker", "run", "--rm", "--entrypoint", name, self.image, *arguments]).decode().strip()

    def up(self, *files: str, settings: Mapping[str, str] | None = None, **variables: str) -> None:
        """Start the server, or restart it if something has changed, and wait until it is healthy. `files` beside
        docker-compose.yml, `settings` for the server, and variables of the files count until the next `up`."""
        # JSON is YAML.
        override = self.folder / "settings.json"
        override.write_text(json.dumps({"services": {"server": {"environment": dict(settings or {})}}}))
        self._files = ["docker-compose.yml", *files, str(override)]
        self._for_now = variables
        self.compose("up", "--detach", "--no-build")
        wait_until(lambda: self.health() == "healthy", "the container is healthy", HEALTHY_S, every_s=0.5)

    def compose(self, *words: str, timeout_s: float = COMMAND_S, stdin: str = "") -> str:
        """`docker compose` with these words; what it printed."""
        return self.compose_bytes(*words, timeout_s=timeout_s, stdin=stdin.encode()).decode()

    def compose_bytes(self, *words: str, timeout_s: float = COMMAND_S, stdin: bytes = b"") -> bytes:
        """The same for what is no text."""
        command = _command(self._files, *words)
        return _run(command, environment=self._variables | self._for_now, timeout_s=timeout_s, stdin=stdin)

    def execute(self, *command: str, stdin: str = "", timeout_s: float = COMMAND_S) -> str:
        """A command in the container, as the server's user; what it printed. Fails where the command does."""
        return self.compose("exec", "-T", "server", *command, stdin=stdin, timeout_s=timeout_s).strip()

    def docker(self, *words: str) -> str:
        """`docker` with these words and the container's id behind them; what it printed."""
        return _run(["docker", *words, self.container()]).decode()

    def container(self) -> str:
        """The id of the server's container, which may have stopped."""
        return self.compose("ps", "--all", "--quiet", "server").strip()

    def state(self) -> dict[str, Any]:
        """The engine's state of the container: Status, ExitCode, OOMKilled, Health, …"""
        inspected: dict[str, Any] = json.loads(self.docker("inspect", "--format", "{{json .State}}"))
        return inspected

    def num_restarts(self) -> int:
        """The number of restarts by the engine itself."""
        return int(self.docker("inspect", "--format", "{{.RestartCount}}"))

    def health(self) -> str:
        """starting, healthy or unhealthy; what else the container is where it does not run."""
        state = self.state()
        return str(state["Health"]["Status"]) if state["Status"] == "running" else str(state["Status"])

    def client(self, **options: Any) -> manyview.Client:
        """A client outside of the container."""
        return manyview.Client(self.address, **options)

    def crash(self) -> None:
        """SIGKILL to the server itself. The container ends with it, and the engine is to start it again."""
        # Under `init: true` the server is the child of process 1, the only one of that name.
        program = "import os, signal, pathlib\n" + (
            "for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n"
            "    words = path.read_bytes().split(b'\\0')\n"
            "    if b'serve' in words and (path.parent / 'status').read_text().find('PPid:\\t1\\n') > 0:\n"
            "        os.kill(int(path.parent.name), signal.SIGKILL)\n"
        )
        # The command dies with the container.
        with suppress(CommandFailed):
            self.execute("python", "-", stdin=program)

    def copy_of_data(self) -> Path:
        """The data directory as it lies in the volume, copied out. The container may have stopped."""
        place = self.folder / "data"
        shutil.rmtree(place, ignore_errors=True)
        self.compose("cp", "server:/data", str(place))
        return place

    def log(self) -> str:
        """The server's log over all its lives in this container."""
        return self.compose("logs", "--no-log-prefix", "server")

    def remove(self) -> None:
        """Container, network and volume. The image stays."""
        self.compose("down", "--volumes", "--timeout", "5")


class CommandFailed(AssertionError):
    """A command of docker's ended with another status than 0."""


def _command(files: Sequence[str], *words: str) -> list[str]:
    named = [word for file in files for word in ("--file", file)]
    return ["docker", "compose", "--project-directory", str(ROOT), *named, *words]


def _run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = COMMAND_S,
    stdin: bytes = b"",
) -> bytes:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | dict(environment or {}),
        input=stdin,
        capture_output=True,
        timeout=timeout_s,
    )
    if done.returncode != 0:
        said = (done.stdout[-2000:] + b"\n" + done.stderr[-2000:]).decode(errors="replace")
        raise CommandFailed(f"{' '.join(command)}\n{said}")
    return done.stdout
