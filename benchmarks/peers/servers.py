"""Start and stop the server of a side, in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.peers.plan import MANYVIEW, STUBS, Batching
from benchmarks.peers.serving.settings import Settings

from benchmarks.peers import environments, model_files

START_S, STOP_S = 180.0, 15.0
REQUEST_S = 60
"""mosec refuses requests that wait longer than 3 seconds, unless it is told otherwise."""
SERVING = "benchmarks.peers.serving"
ROOT_OF_SERVERS = Path(__file__).parent / "serving"
QUIET = {"BENTOML_DO_NOT_TRACK": "True", "RAY_USAGE_STATS_ENABLED": "0", "DO_NOT_TRACK": "1"}


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that runs."""

    pid: int
    address: str
    model: str
    """The name of its model, for manyview."""


@contextmanager
def serving(
    side: str, folder: Path, image_size: int, number_format: str, batching: Batching | None
) -> Iterator[Server]:
    """Run the server of a side, and stop it with all its processes."""
    port = free_port()
    if side in (MANYVIEW, STUBS):
        command = [sys.executable, "-m", "manyview_server", "serve", "--listen", f"127.0.0.1:{port}"]
        command += ["--data", str(model_files.server_data(folder))]
        environment = dict(os.environ)
    else:
        assert batching is not None
        settings = Settings(
            weights=str(model_files.weights(folder, image_size, number_format)),
            image_size=image_size,
            number_format=number_format,
            port=port,
            **asdict(batching),
        )
        command = peer_command(side, port)
        environment = {**os.environ, **QUIET, **settings.variables(), "PYTHONPATH": str(environments.ROOT)}
        environment["OMP_NUM_THREADS"] = str(batching.threads)
    with tempfile.TemporaryDirectory(prefix="manyview-peers-") as directory:
        log = Path(directory) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=directory, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        try:
            wait_until_it_listens(process, port, log)
            yield Server(
                pid=process.pid, address=f"127.0.0.1:{port}", model=model_files.job_name(image_size, number_format)
            )
        finally:
            stop(process)


def peer_command(peer: str, port: int) -> list[str]:
    """Return the command that starts a peer."""
    interpreter = str(environments.python(peer))
    match peer:
        case "mosec":
            command = [interpreter, "-m", f"{SERVING}.mosec_server", "--address", "127.0.0.1", "--port", str(port)]
            return [*command, "--timeout", str(1000 * REQUEST_S)]
        case "bentoml":
            target = f"{SERVING}.bentoml_server:Embed"
            return [interpreter, "-m", "bentoml", "serve", target, "--host", "127.0.0.1", "--port", str(port)]
    return [interpreter, "-m", f"{SERVING}.{peer}_server"]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait for a server. Raises SystemExit with the end of its log if it does not start."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"the server does not listen:\n{log.read_text(errors='replace')[-3000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and every process of its session."""
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
