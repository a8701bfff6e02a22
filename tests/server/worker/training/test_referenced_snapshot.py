"""A trainer that gets the rows of its images by reference computes what it computes from the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from manyview_server.store.images import shard_index
from manyview_server.store.images.snapshots import SnapshotRows
from manyview_server.worker.training.trainer import Trainer
from support.learning import worker_harness
from support.learning.training import FIXED, Sent, changed, losses


def test_a_job_whose_rows_lie_in_index_files_computes_the_same(tmp_path: Path) -> None:
    directory = tmp_path / "dataset"
    snapshot = worker_harness.write_dataset(directory, worker_harness.digits(60))
    shard_index.write(directory, 0, snapshot[:40])
    rows = SnapshotRows(
        directory=directory,
        first=0,
        last=60,
        shards=np.array([0]),
        ends=np.array([40]),
        loose=snapshot[40:],
    )
    start = worker_harness.start_training(tmp_path, snapshot, worker_harness.settings("moco", epochs=1, **FIXED))
    sent, by_reference = Sent(), Sent()
    assert Trainer(sent, start).train() == "succeeded"
    referring = changed(start, {}, tmp_path / "other", blobs=rows.blobs)
    assert len(referring.blobs[0]) < len(start.blobs[0])
    assert Trainer(by_reference, referring).train() == "succeeded"
    assert losses(sent) == losses(by_reference)
    assert len(losses(sent)) > 0
