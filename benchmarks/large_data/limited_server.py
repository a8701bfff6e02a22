"""Measure a whole server in a control group with little memory, on a data set whose decoded images do not fit.

Three servers train the same job: one without a limit, which keeps all decoded images; one whose control group has
`--memory` GB; and one with the same limit that is killed (SIGKILL) while its trainer decodes, and started again, twice.
The memory is that of all processes of the server together, without the page cache. The losses and the weights at the
end must be equal, bit for bit. A call measures one server. It needs root, because it makes a control group below its
own.

    python -m benchmarks.large_data.limited_server measure IMAGES
    python -m benchmarks.large_data.limited_server report
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.results import Results, markdown
from safetensors.numpy import load_file

import manyview
from manyview_server.system.control_groups import Group, own_groups

RESULTS = Results("limited_server")
SERVERS = {"without a limit": (False, 0), "limited": (True, 0), "limited, and killed": (True, 2)}
SAMPLE_S = 0.2
DEADLINE_S = 570.0
END_S = 60.0
EXACT = ("loss", "gradient_norm", "representation_std", "learning_rate")
PATIENT = manyview.Deadlines(unary_s=5.0)


def main() -> None:
    """Measure the next server, or print all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("measure", "report"))
    parser.add_argument("images", nargs="?", type=Path, help="a folder of photographs")
    parser.add_argument("--memory", type=float, default=3.0, help="the limit in GB")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=150)
    arguments = parser.parse_intermixed_args()
    if arguments.part == "measure":
        measure_next(arguments)
    print(document())


def measure_next(arguments: argparse.Namespace) -> None:
    """Measure the first server that is missing."""
    for name in SERVERS:
        key = {"server": name, "memory": arguments.memory, "image_size": arguments.image_size, "steps": arguments.steps}
        if RESULTS.find(**key) is None:
            RESULTS.add(key, measure(key, arguments.images))
            return


def measure(key: dict[str, Any], images: Path) -> dict[str, Any]:
    """Train the job on one server, and return what was measured."""
    is_limited, num_kills = SERVERS[key["server"]]
    deadline = time.monotonic() + DEADLINE_S
    with tempfile.TemporaryDirectory(prefix="manyview-limited-") as folder, control_group() as group:
        if is_limited:
            set_limit(group, int(key["memory"] * 1e9))
        data, memory = Path(folder) / "data", Memory(group)
        server = Server(data, group)
        try:
            with manyview.Client(server.address) as client:
                uploaded = client.upload(images, "photographs")
                job_id = client.train("photographs", "simclr", config=configuration(key)).id
            memory.start()
            began = time.monotonic()
            for number in range(1, num_kills + 1):
                while step_of(server, job_id) < number * key["steps"] // (num_kills + 1):
                    assert time.monotonic() < deadline, "the job takes too long"
                    time.sleep(0.2)
                server.kill()
                server = Server(data, group)
            with manyview.Client(server.address) as client:
                job = client.job(job_id)
                job.wait(timeout_s=deadline - time.monotonic())
                took_s, peaks = time.monotonic() - began, memory.stop()
                steps = {row["step"]: [row.get(name) for name in EXACT] for row in job.history().rows if "loss" in row}
                assert job.info.attempt == num_kills + 1
                weights = digest(data / "jobs" / job.info.uid / "checkpoints")
        finally:
            memory.stop()
            server.stop()
        return {
            "images": uploaded.num_images,
            "took_s": took_s,
            "peak_bytes": max(peaks),
            "peaks_by_quarter": [max(quarter) for quarter in quarters(peaks)],
            "oom_kills": oom_kills(group),
            "steps": len(steps),
            "losses": hashlib.sha256(json.dumps(sorted(steps.items())).encode()).hexdigest(),
            "weights": weights,
            "load_average": os.getloadavg()[0],
        }


def configuration(key: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the job: a step is short, so that decoding counts."""
    return {
        "backbone": "resnet9",
        "backbone_width": 0.25,
        "image_size": key["image_size"],
        "batch_size": 32,
        "precision": "float32",
        "memory_format": "channels_last",
        "max_steps": key["steps"],
        "epochs": 1000,
        "log_every_steps": 1,
        "checkpoint_every_steps": 10,
        "evaluation": {"knn_every_epochs": 0},
    }


class Server:
    """`manyview-server serve` in a control group, with all processes that it starts."""

    def __init__(self, data: Path, group: Group) -> None:
        command = [sys.executable, "-m", "manyview_server", "serve", "--listen", "127.0.0.1:0", "--data", str(data)]
        enter = f'echo $$ > "{group.directory}/cgroup.procs" && exec "$@"'
        with data.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", enter, "sh", *command, "--no-measure-steps"],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the server did not start: {data.with_suffix('.log').read_text()[-2000:]}"
        self.address = json.loads(line)["address"]
        self._group = group

    def kill(self) -> None:
        """Send SIGKILL, and wait until its workers have ended as well."""
        self._process.kill()
        self._await_end()

    def stop(self) -> None:
        """End it, and wait until its workers have ended as well."""
        self._process.terminate()
        self._await_end()

    def _await_end(self) -> None:
        self._process.wait()
        deadline = time.monotonic() + END_S
        while processes := (self._group.directory / "cgroup.procs").read_text().split():
            assert time.monotonic() < deadline, f"processes of the server do not end: {processes}"
            time.sleep(0.05)


def step_of(server: Server, job_id: str) -> int:
    """Return the step that the job has reached."""
    with manyview.Client(server.address, deadlines=PATIENT) as client:
        return int(client.job(job_id).info.progress.step)


@contextmanager
def control_group() -> Iterator[Group]:
    """Make a control group below the own one, and remove it."""
    (own, *_) = own_groups("memory")
    group = Group(own.directory / f"manyview-{os.getpid()}", own.version)
    group.directory.mkdir()
    try:
        yield group
    finally:
        group.directory.rmdir()


def set_limit(group: Group, num_bytes: int) -> None:
    """Let the processes of the group take this much memory together."""
    name = "memory.max" if group.version == 2 else "memory.limit_in_bytes"
    (group.directory / name).write_text(str(num_bytes))


def oom_kills(group: Group) -> int:
    """Return how many processes of the group the kernel has killed for lack of memory."""
    return group.counter("memory.events" if group.version == 2 else "memory.oom_control", "oom_kill")


class Memory:
    """Reads the memory of a control group again and again: of its processes, without the page cache."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._stopped = threading.Event()
        self._found: list[int] = []
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> list[int]:
        """Return the bytes, in the order in which they were read."""
        self._stopped.set()
        with suppress(RuntimeError):  # it was never started
            self._thread.join()
        return self._found

    def _read(self) -> None:
        name = "anon" if self._group.version == 2 else "total_rss"
        while not self._stopped.wait(SAMPLE_S):
            self._found.append(self._group.counter("memory.stat", name))


def quarters(values: list[int]) -> list[list[int]]:
    """Return four parts of about the same length."""
    cuts = [len(values) * number // 4 for number in range(5)]
    return [values[start:stop] for start, stop in itertools.pairwise(cuts)]


def digest(checkpoints: Path) -> str:
    """Return a hash of all tensors in the newest checkpoint: weights, heads, optimizer."""
    newest, found = max(checkpoints.iterdir()), hashlib.sha256()
    for file in sorted(newest.glob("*.safetensors")):
        for name, tensor in sorted(load_file(file).items()):
            found.update(name.encode())
            found.update(tensor.tobytes())
    return found.hexdigest()


def document() -> str:
    """Return all servers as a table of Markdown, which docs/operations.md shows."""
    cells = {cell["key"]["server"]: cell["values"] for cell in RESULTS.cells()}
    names = [name for name in SERVERS if name in cells]
    if not names:
        return "nothing is measured yet"
    first = cells[names[0]]

    def equal(values: dict[str, Any], what: str) -> str:
        return "equal" if values[what] == first[what] else "different"

    rows = [
        ["", *names],
        ["time of the job", *(f"{cells[name]['took_s']:.0f} s" for name in names)],
        ["most memory of all processes", *(f"{cells[name]['peak_bytes'] / 1e6:,.0f} MB" for name in names)],
        [
            "in each quarter of the time",
            *(", ".join(f"{peak / 1e6:,.0f}" for peak in cells[name]["peaks_by_quarter"]) for name in names),
        ],
        ["processes killed for lack of memory", *(str(cells[name]["oom_kills"]) for name in names)],
        ["losses of all steps", "", *(equal(cells[name], "losses") for name in names[1:])],
        ["weights at the end", "", *(equal(cells[name], "weights") for name in names[1:])],
    ]
    return markdown(rows)


if __name__ == "__main__":
    main()
