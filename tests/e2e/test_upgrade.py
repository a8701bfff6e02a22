"""The store of the first release under this one's server and workers: it embeds, and its jobs continue."""

from __future__ import annotations

import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal

import numpy as np

from support.service.harness import ServerProcess, jpeg

OLDEST = Path(__file__).parent.parent / "server/store/startup/old_stores/schema-1.tar.xz"
PATIENCE_S = 50.0


def test_a_checkpoint_of_the_oldest_release_embeds_and_jobs_go_on_from_it(
    new_server: Callable[..., ServerProcess],
) -> None:
    server = new_server()
    with tarfile.open(OLDEST) as archive:
        archive.extractall(server.data_dir, filter="data")
    # The old server was killed just before it recorded the end of the job.
    with closing(sqlite3.connect(server.data_dir / "manyview.sqlite")) as connection:
        connection.execute("UPDATE job SET state = 'RUNNING', end_time = 0")
        connection.commit()
    server.start()
    with server.client() as client:
        job = client.job("first")
        assert job.wait(PATIENCE_S).state == "SUCCEEDED"
        assert job.info.attempt == 2
        outputs: dict[Literal["backbone", "projection"], int] = {"backbone": 64, "projection": 8}
        for output, width in outputs.items():
            vectors = client.embed([jpeg()], "trainJobs/first", output=output)
            assert vectors.array.shape == (1, width)
            assert np.isfinite(vectors.array).all()
        longer = client.train(continue_from="first", epochs=2, job_id="second")
        assert longer.info.config["views"]["pipelines"][0]["color_jitter"]["strength"] == 0.25
        # It continues with the pixels that it was trained on.
        assert (longer.info.config["transparency"], longer.info.config["color_profile"]) == ("drop", "ignore")
        assert longer.wait(PATIENCE_S).state == "SUCCEEDED"
        assert [event.step for event in longer.metrics(kinds=["scalars"]) if "loss" in event] == [3, 4]
