"""The fork server refuses to fork what would not survive it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from manyview_server.counted_noun import number_of
from manyview_server.worker import fork_server
from support.learning import forked

PROGRAM = """
import importlib
from manyview_server.worker import fork_server
for name in fork_server.LATER_IMPORTS:
    importlib.import_module(name)
print(fork_server.why_unfit())
"""


def test_what_workers_import_starts_no_thread_and_opens_no_gpu() -> None:
    done = forked.run(PROGRAM, os.environ | {"OPENBLAS_NUM_THREADS": "1"})
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_a_process_with_threads_or_an_open_gpu_is_unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    others = len(os.listdir("/proc/self/task")) - 1
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    assert fork_server.why_unfit() == f"importing the libraries started {number_of(others + 1, 'thread')}"
    done.set()
    thread.join()
    monkeypatch.setattr(os, "listdir", lambda _: ["1"])
    assert fork_server.why_unfit() == ""
    monkeypatch.setattr(os, "readlink", lambda path: "/dev/nvidia0" if Path(path).name == "1" else "/dev/null")
    assert fork_server.why_unfit() == "importing the libraries opened a GPU"
