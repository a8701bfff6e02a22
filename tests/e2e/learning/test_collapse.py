"""A training that collapses says so everywhere that its owner may look, and ends where that was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import manyview
from manyview._cli.main import app
from support.service.harness import SMALL_JOB, ServerProcess, write_photos

pytestmark = pytest.mark.timeout(180)

COLLAPSING = {
    **SMALL_JOB,
    "max_steps": 400,
    "epochs": 1000,
    "log_every_steps": 10,
    "checkpoint_every_epochs": 500,
    # A teacher that is the student, and no norm that keeps the projections apart.
    "ema_momentum": 0.0,
    "projection_batch_norm": False,
    "optimizer": {"learning_rate": 0.3},
    "evaluation": {"knn_every_epochs": 0},
    "on_collapse": "stop",
}


def test_a_job_that_collapses_tells_of_it_and_fails_with_a_checkpoint_where_it_is_to_stop(
    server: ServerProcess, client: manyview.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "photos", 96, seed=11)
    photos = client.upload(tmp_path / "photos", dataset="collapsing")
    job = client.train(photos, "moco", config=COLLAPSING)
    with pytest.raises(manyview.TrainJobFailed) as failed:
        job.wait(timeout_s=120)
    assert failed.value.reason == "COLLAPSED"
    assert "the projections have collapsed: since step" in str(failed.value)
    assert "on_collapse=warn" in failed.value.hint

    (alert,) = job.metrics(kinds=["alert"])
    assert (alert["reason"], alert.step) == ("COLLAPSE", 210), "100 steps after the first 100, which do not count"
    assert any(line.level == "WARNING" and line.text.startswith("COLLAPSE: the projections") for line in job.logs())
    last = int(job.refresh().latest_checkpoint.rpartition("/")[2])
    assert last in (210, 211)
    assert len(client.embed(sorted((tmp_path / "photos").rglob("*.jpg"))[:4], model=job)) == 4, "it can be looked at"
    assert job.history()["projection_std_ratio"][-1] < 0.25

    monkeypatch.setenv("MANYVIEW_TARGET", server.address)
    watched = CliRunner().invoke(app, ["watch", job.name.removeprefix("trainJobs/")])
    assert watched.exit_code == 1
    assert "alert: COLLAPSE  the projections have collapsed" in watched.output
