"""Every process is stopped for longer than a trainer may be silent, as a closed laptop stops them, and goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

import manyview
from support.service.harness import SMALL_JOB, ServerProcess, jpeg, wait_until
from support.soak.rounds import soaking

pytestmark = pytest.mark.timeout(150)

SILENCE_S, STOPPED_S = (6.0, 9.0) if soaking() else (4.0, 6.0)
JOB = SMALL_JOB | {"epochs": 5000, "checkpoint_every_epochs": 5000, "evaluation": {"knn_every_epochs": 0}}
WORKERS = None if soaking() else {"trainer": {"steps": 1_000_000, "step_s": 0.02, "checkpoint_every": 1_000_000}}
"""Outside of soak, workers without torch: how long they are silent is up to the signals and the server."""
PATIENCE_S = 60.0


def test_processes_that_were_stopped_for_longer_than_a_trainer_may_be_silent_go_on_where_they_were(
    new_server: Callable[..., ServerProcess],
) -> None:
    server = new_server("--trainer-silence-s", f"{SILENCE_S:g}", workers=WORKERS)
    server.start()
    with server.client() as client:
        client.upload([jpeg(seed=seed) for seed in range(32)], dataset="photos")
        job = client.train("photos", "simclr", config=JOB)
        client.embed([jpeg()], model="backbones/resnet9")
        for woken_first in ("server", "workers"):
            reaches_another_step(job)
            assert server.process is not None
            workers = [pid for pid in server.processes() if pid != server.process.pid]
            order = [server.process.pid, *workers]
            stop(order if woken_first == "server" else order[::-1], STOPPED_S)
            reaches_another_step(job)
            assert (job.state, job.info.attempt) == ("RUNNING", 1), f"{woken_first} woken first"
            client.embed([jpeg()], model="backbones/resnet9")
        job.cancel()
        wait_until(lambda: job.refresh().is_terminal, "the job is cancelled", PATIENCE_S)
        assert job.state == "CANCELLED"
        assert [event.kind for event in job.metrics(kinds=["rollback", "alert"])] == []
    assert server.stop() == 0
    log = server.log.read_text()
    assert "died" not in log, log[-2000:]


def reaches_another_step(job: manyview.Job) -> None:
    before = job.refresh().progress.step
    wait_until(lambda: job.refresh().is_terminal or job.info.progress.step > before + 2, "training", PATIENCE_S)


def stop(pids: list[int], seconds: float) -> None:
    """SIGSTOP for a while. They are woken in the order of the list, half a second apart."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.5)
