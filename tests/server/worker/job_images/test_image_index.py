from __future__ import annotations

import numpy as np

from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.worker.job_images.image_index import ImageIndex


def rows(labels: list[int], first_id: int = 0) -> np.ndarray:
    made = np.zeros(len(labels), SNAPSHOT_DTYPE)
    made["image_id"], made["label"] = np.arange(first_id, first_id + len(labels)), labels
    return made


def test_an_index_lists_ids_and_labels_by_row() -> None:
    index = ImageIndex(rows([2, -1, 0]))
    assert (len(index), index.num_classes) == (3, 3)
    assert index.image_ids.tolist() == [0, 1, 2]
    assert index.labels.tolist() == [2, -1, 0]
    assert ImageIndex(rows([])).num_classes == 0
    assert ImageIndex(rows([-1, -1])).num_classes == 0


def test_images_that_are_added_come_behind_the_others_and_the_first_ones_stay() -> None:
    index = ImageIndex(rows([0, 0]))
    longer = index.extended(rows([1], first_id=2))
    assert (longer.image_ids.tolist(), longer.labels.tolist(), longer.num_classes) == ([0, 1, 2], [0, 0, 1], 2)
    assert (len(index), len(longer.first(2)), longer.first(2).num_classes) == (2, 2, 1)
    assert longer.first(3) is longer
