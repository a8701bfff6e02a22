from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from support.service.harness import ServerProcess, wait_until

HOLDER = """
import fcntl, sys, time
memory = b"x" * (256 << 20)
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("holds", flush=True)
time.sleep(60)
"""


def test_a_process_that_dies_counts_until_it_has_let_go_of_its_files(tmp_path: Path) -> None:
    """Its environment, by which it is known, goes first, and its files after a large memory is torn down."""
    server = ServerProcess(tmp_path / "data")
    environment = os.environ | {"MANYVIEW_TEST_MARK": server.mark}
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "file")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"holds\n"
        assert server.processes() == [holder.pid]
        holder.kill()
        wait_until(lambda: not server.processes(), "the process is gone", 10)
        with (tmp_path / "file").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
