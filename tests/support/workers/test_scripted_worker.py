from __future__ import annotations

import subprocess
import sys

import numpy as np

from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from support.workers.behaviour import SNAPSHOT_ROW
from support.workers.program import TESTS


def test_a_row_of_a_snapshot_is_unpacked_as_numpy_does() -> None:
    row = (-(1 << 40), 1, 1 << 40, 2, 3, 4, 5)
    assert SNAPSHOT_ROW.pack(*row) == np.array([row], SNAPSHOT_DTYPE).tobytes()


def test_the_worker_starts_without_numpy() -> None:
    program = f"import sys; sys.path.insert(0, {TESTS!r}); import support.workers.scripted_worker; print(*sys.modules)"
    imported = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "support.workers.scripted_worker" in imported
    assert "numpy" not in imported
