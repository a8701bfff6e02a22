"""Blocks of the size of a message cost no new pages once their memory was used."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, threading
from manyview_server.system import heap

def allocate(count):
    for _ in range(count):
        blocks = [bytes(1_500_000) for _ in range(8)]
        del blocks

def counted():
    allocate(3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    allocate(50)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

faults = []
kept = heap.keep_freed_memory() if KEEP else False
thread = threading.Thread(target=counted)  # a thread has an arena of its own
thread.start()
thread.join()
print(kept, faults[0])
"""


def run(keep: bool, **variables: str) -> tuple[bool, int]:
    found = subprocess.run(
        [sys.executable, "-c", f"KEEP = {keep}\n{PROGRAM}"],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    kept, faults = found.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone has mallopt")
def test_memory_of_large_blocks_is_kept() -> None:
    _, given_back = run(keep=False)
    kept, faults = run(keep=True)
    assert kept
    assert given_back > 100_000
    assert faults < given_back / 20


def test_what_the_operator_has_set_stays() -> None:
    kept, _ = run(keep=True, MALLOC_TRIM_THRESHOLD_="131072")
    assert not kept
