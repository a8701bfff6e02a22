"""Measure the cost of selecting among embeddings: seconds and peak memory of each strategy, in its own process.

Rows are random, in 1,000 clusters, of length 1. A call measures the next missing cell, and prints all cells. The time
does not include making the rows. The memory is the peak of the process (RSS), including PyTorch.

    python -m benchmarks.selection            # one cell
    python -m benchmarks.selection --all      # all missing cells
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from benchmarks.results import Results, table
from torch import Tensor

from manyview_server.learn import pca
from manyview_server.learn import selection as s

RESULTS = Results("selection")
COSTS = {"seconds": 1, "cpu_seconds": 1, "peak_rss_mib": 0}
CLUSTERS = 1000
CHUNK = 50_000

Work = Callable[[Tensor], int]
STRATEGIES: dict[str, Work] = {
    "coreset of 1,000": lambda x: len(s.coreset(x, 1000, seed=0)),
    "coreset of 10,000": lambda x: len(s.coreset(x, 10_000, seed=0)),
    "minimum distance 0.8": lambda x: len(s.minimum_distance(x, 0.8, seed=0)),
    "typicality, 1,000": lambda x: len(s.typicality(x, 1000)),
    "similarity to 100, 1,000": lambda x: len(s.similarity(x, x[:100], 1000)),
    "random, 1,000": lambda x: len(s.random(len(x), 1000, seed=0)),
    "near-duplicates within 0.1": lambda x: len(s.near_duplicates(x, 0.1).unique()),
    "10 neighbors of 1,000": lambda x: len(s.nearest(x[:1000], x, 10)[0]),
    "principal components": lambda x: len(pca.fit(torch.split(x, CHUNK)).components),
}
CELLS = [
    *((name, 100_000, 128) for name in STRATEGIES if name != "coreset of 1,000"),
    *(
        (name, 1_000_000, 128)
        for name in ("coreset of 1,000", "similarity to 100, 1,000", "random, 1,000", "10 neighbors of 1,000")
    ),
    ("principal components", 1_000_000, 128),
    ("coreset of 10,000", 100_000, 512),
    ("typicality, 1,000", 100_000, 512),
    ("near-duplicates within 0.1", 100_000, 512),
    ("principal components", 100_000, 2048),
]


def main() -> None:
    """Measure a cell, or all missing cells, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="all that are missing")
    parser.add_argument("--report", action="store_true", help="only print what there is")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measured(*json.loads(arguments.child))))
        return
    missing = (cell for cell in CELLS if RESULTS.find(**key(*cell)) is None)
    for cell in [] if arguments.report else missing:
        command = [sys.executable, "-m", "benchmarks.selection", "--child", json.dumps(cell)]
        RESULTS.add(key(*cell), json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
        if not arguments.all:
            break
    print(report())


def key(name: str, num_rows: int, num_features: int) -> dict[str, Any]:
    """Return the key of a cell."""
    return {"what": name, "rows": num_rows, "features": num_features}


def measured(name: str, num_rows: int, num_features: int) -> dict[str, Any]:
    """Measure in the child process: seconds, peak memory, and the number of rows, groups or components in the
    result."""
    rows = torch.empty(num_rows, num_features)
    for place, chunk in clustered(num_rows, num_features):
        rows[place] = chunk
    began, cpu_began = time.perf_counter(), time.process_time()
    found = STRATEGIES[name](rows)
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu_began,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "found": found,
        "threads": torch.get_num_threads(),
    }


def clustered(num_rows: int, num_features: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows of length 1 around 1,000 centres, chunk by chunk. A hundredth of them nearly equal another row."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CLUSTERS, num_features, generator=generator)
    for start in range(0, num_rows, CHUNK):
        size = min(CHUNK, num_rows - start)
        own = torch.randint(CLUSTERS, (size,), generator=generator)
        chunk = centres[own] + 0.7 * torch.randn(size, num_features, generator=generator)
        copies = torch.arange(0, size - 1, 100)
        chunk[copies] = chunk[copies + 1] + 1e-3
        yield slice(start, start + size), s.unit_rows(chunk)


def report() -> str:
    """Return all cells as a table."""
    rows = [["what", "rows", "features", "found", "seconds", "CPU s", "peak MiB"]]
    for cell in RESULTS.cells():
        of, values = cell["key"], cell["values"]
        sizes = [f"{of['rows']:,}", f"{of['features']:,}", f"{values['found']:,}"]
        costs = [f"{values[name]:.{digits}f}" for name, digits in COSTS.items()]
        rows.append([of["what"], *sizes, *costs])
    return table(rows)


if __name__ == "__main__":
    main()
