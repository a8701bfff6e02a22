"""Measure the memory of each process of a server, idle and in use, and the start of the client.

A server with a fork server is measured when it is idle, when it has started each kind of worker once, while a job
trains beside them, after the job, and when all is idle again. The memory of a process is its share (PSS: a page that N
processes share counts as one Nth in each), what it has for itself (USS), and its pages by what they hold. The start of
the client is the processor time of a new interpreter, the median of several.

    python -m benchmarks.memory measure
    python -m benchmarks.memory report
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.results import Results, table
from benchmarks.starts import CATALOGUE, JOB, MODEL, Server, pictures

import manyview
from manyview_server.worker.embedding.idle_heap import IDLE_S

RESULTS = Results("memory")
SETTLE_S = 3.0
ROUNDS = 5
KINDS = {"fork-server": "fork server", "trainer": "trainer", "embedder": "embedder", "selector": "selector",
         "previewer": "previewer", "step-timer": "step timer"}  # fmt: skip
TORCH = ("libtorch", "libc10", "libshm", "libgomp", "torch/_C")
CLI = "from manyview._cli.main import main; main()"
CLIENT: dict[str, list[str]] = {
    "a bare interpreter": ["-c", "pass"],
    "import manyview": ["-c", "import manyview"],
    "manyview.Client": ["-c", "import manyview; manyview.Client"],
    "manyview --version": ["-c", CLI, "--version"],
    "manyview --help": ["-c", CLI, "--help"],
}


def main() -> None:
    """Measure one cell, then print all cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("measure", "report"))
    parser.add_argument("--release", default="now", help="a name for the version of the server")
    parser.add_argument("--try", dest="trying", action="store_true", help="print the cells, and do not store them")
    arguments = parser.parse_args()
    cells = RESULTS.cells()
    if arguments.part == "measure":
        parts = {"server": server, "client": client}
        for part, work in parts.items():
            key = {"part": part, "release": arguments.release}
            if arguments.trying:
                cells = [*(cells if part == "client" else []), {"key": key, "values": work()}]
            elif RESULTS.find(**key) is None:
                RESULTS.add(key, work())
                cells = RESULTS.cells()
    print(report(cells))


def server() -> dict[str, Any]:
    """Return the memory of each process, by the state of the server."""
    found: dict[str, Any] = {}
    images = pictures()
    with tempfile.TemporaryDirectory() as folder:
        running = Server(Path(folder) / "data", "on", Path(folder) / CATALOGUE)
        try:
            with manyview.Client(running.address) as client:
                client.upload(images, "few")
                time.sleep(max(0.0, running.served_at + 10.0 - time.monotonic()))
                found["idle"] = processes(running.pid)
                client.embed(images[:4], MODEL)
                client.preview(images[:4], config={"image_size": 32})
                client.select("few", 8, model=MODEL)
                time.sleep(SETTLE_S)
                found["answered"] = processes(running.pid)
                job = client.train("few", "moco", config=JOB, epochs=100_000)
                next(event for event in job.metrics(kinds=["scalars"]) if event.step >= 50)
                client.embed(images, MODEL)
                found["training"] = processes(running.pid)
                job.cancel()
                with suppress(manyview.TrainJobCancelled):
                    job.wait()
                time.sleep(SETTLE_S)
                found["trained"] = processes(running.pid)
                time.sleep(IDLE_S + SETTLE_S)
                found["idle again"] = processes(running.pid)
        finally:
            running.stop()
    return found


def processes(front: int) -> list[dict[str, Any]]:
    """Return the memory of the server's own process and of its workers, in MiB."""
    children = [int(pid) for task in Path(f"/proc/{front}/task").iterdir() for pid in _words(task / "children")]
    return [{"process": _kind(pid), **memory(pid)} for pid in [front, *children]]


def _words(path: Path) -> list[str]:
    return path.read_text().split()


def _kind(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return next((name for word, name in KINDS.items() if word in command), "front")


def memory(pid: int) -> dict[str, float]:
    """Return RSS, PSS and USS of a process, and its resident pages by what they hold, in MiB."""
    found = dict.fromkeys(("rss", "pss", "uss", "heap", "torch", "libraries", "shared"), 0.0)
    for name, sizes in _mappings(pid):
        found["rss"] += sizes["Rss"]
        found["pss"] += sizes["Pss"]
        found["uss"] += sizes["Private_Clean"] + sizes["Private_Dirty"]
        # Pages of a mapped file that were written to are anonymous, too.
        found["heap"] += sizes["Anonymous"]
        rest = sizes["Rss"] - sizes["Anonymous"]
        kind = "torch" if any(word in name for word in TORCH) else "libraries" if name.startswith("/") else "shared"
        found[kind] += rest
    return {name: round(size / 1024, 1) for name, size in found.items()}


def _mappings(pid: int) -> Iterator[tuple[str, dict[str, int]]]:
    name, sizes = "", dict[str, int]()
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if words[0].endswith(":"):
            if words[-1] == "kB":
                sizes[words[0][:-1]] = int(words[1])
            continue
        if sizes:
            yield name, sizes
        name, sizes = " ".join(words[5:]), {}
    yield name, sizes


def client() -> dict[str, Any]:
    """Return the processor seconds, and the seconds of programs that use the client."""
    return {name: [_ran(arguments) for _ in range(ROUNDS)] for name, arguments in CLIENT.items()}


def _ran(arguments: list[str]) -> dict[str, float]:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    wall_s, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": round(cpu_s, 3), "wall_s": round(wall_s, 3)}


def report(cells: list[dict[str, Any]]) -> str:
    """Return the cells as two tables."""
    servers = [["", "state", "process", "RSS MiB", "PSS", "USS", "heap", "torch", "other libraries", "shared"]]
    clients = [["", "program", "CPU s", "wall s"]]
    for cell in cells:
        release, values = cell["key"]["release"], cell["values"]
        if cell["key"]["part"] == "client":
            for program, runs in values.items():
                medians = [f"{statistics.median(run[name] for run in runs):.2f}" for name in ("cpu_s", "wall_s")]
                clients.append([release, program, *medians])
            continue
        for state, rows in values.items():
            for row in rows:
                sizes = [f"{row[name]:.0f}" for name in ("rss", "pss", "uss", "heap", "torch", "libraries", "shared")]
                servers.append([release, state, row["process"], *sizes])
            total = [f"{sum(row[name] for row in rows):.0f}" for name in ("pss", "uss")]
            servers.append([release, state, "all", "", *total, "", "", "", ""])
    return f"{table(servers)}\n\n{table(clients)}"


if __name__ == "__main__":
    main()
