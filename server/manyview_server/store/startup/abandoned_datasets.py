"""Remove the empty data sets of uploads that were never finished.

An upload that creates its data set removes it again when it is finished and none of its images was stored. If its
client dies, it is never finished. A start removes such a data set at once if nothing was acknowledged, because a client
that comes back creates it again. Otherwise it waits for a day, because a client that still runs would take acknowledged
images that are gone for lost ones.
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from manyview_server.store.deletions import Deletions
from manyview_server.store.images.datasets import delete_rows

log = logging.getLogger(__name__)

RESUMED_WITHIN_S = 24 * 3600.0

ABANDONED = """
    SELECT pk, dataset_id, uid FROM dataset
    WHERE created_by_upload AND num_images = 0 AND (num_rejected = 0 OR create_time < ?)
    AND NOT EXISTS (
        SELECT 1 FROM job WHERE dataset_uid = dataset.uid AND state NOT IN ('CANCELLED', 'SUCCEEDED', 'FAILED')
    )
"""


def remove(connection: sqlite3.Connection, deletions: Deletions, data_dir: Path, now: float) -> None:
    """Remove these data sets within a transaction. Sweep after it."""
    for pk, dataset_id, uid in connection.execute(ABANDONED, (now - RESUMED_WITHIN_S,)).fetchall():
        log.info("the data set %s is removed: no image was stored by the upload that created it", dataset_id)
        delete_rows(connection, deletions, pk, data_dir / "datasets" / uid, data_dir / "embeddings" / uid)
