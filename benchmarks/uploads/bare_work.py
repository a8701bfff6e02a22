"""The work that no durable upload can avoid, in one process and one thread: both SHA-256 of each image, one write, and
one sync for each group of images. It has no gRPC, no checks and no rows, so it shows how much of an upload these are.
"""

from __future__ import annotations

import gc
import hashlib
import os
import time
from typing import Any

from benchmarks.uploads.cpu_time import cpu_s
from benchmarks.uploads.images import FOLDER, read_images

GROUP_BYTES = 6 << 20
"""Four batches of the SDK, which is what a server that is busy with one upload syncs at once."""
MAX_PIECES = 1024


def work(kind: str) -> dict[str, Any]:
    """Hash, write and sync all images once. Return the wall time and the CPU time."""
    images = [data for _, data in read_images(kind)]
    path = FOLDER / "bare"
    fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    gc.collect()
    began, cpu = time.perf_counter(), cpu_s()
    group: list[bytes] = []
    num_bytes = at = 0
    for data in images:
        for _ in ("the client's", "the server's"):
            hashlib.sha256(data).digest()
        group.append(data)
        num_bytes += len(data)
        if num_bytes >= GROUP_BYTES:
            at += write(fd, group, at)
            group, num_bytes = [], 0
    write(fd, group, at)
    taken = {"seconds": time.perf_counter() - began, "client_cpu_s": 0.0, "server_cpu_s": cpu_s() - cpu}
    os.close(fd)
    path.unlink()
    return taken


def write(fd: int, group: list[bytes], at: int) -> int:
    """Write images from offset `at` on, and sync them. Return their size."""
    start = at
    for first in range(0, len(group), MAX_PIECES):
        at += os.pwritev(fd, group[first : first + MAX_PIECES], at)
    os.fdatasync(fd)
    return at - start
