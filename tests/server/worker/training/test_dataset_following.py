from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import pytest

from manyview_server.messages.training import Adoption, ImagesAdded
from manyview_server.worker.job_images.decoded_images import DecodedImages
from manyview_server.worker.training.dataset_following import DatasetFollowing
from support.learning import job_images, worker_harness

Added = queue.SimpleQueue[ImagesAdded]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    directory = tmp_path_factory.mktemp("following")
    return directory, worker_harness.write_dataset(directory, worker_harness.digits(30))


def opened(dataset: tuple[Path, Any], num_images: int) -> DecodedImages:
    directory, snapshot = dataset
    return job_images.from_dataset(directory, snapshot[:num_images])


def test_images_that_have_come_are_adopted_together_and_nothing_is_decoded_for_it(dataset: tuple[Path, Any]) -> None:
    images, added = opened(dataset, 10), Added()
    following = DatasetFollowing(images, (), added)
    assert following.next_adoption(2, 1) is None
    for first, last in ((10, 15), (15, 30)):
        added.put(ImagesAdded(blobs=(dataset[1][first:last].tobytes(),)))
    assert following.next_adoption(4, 2) == Adoption(step=4, epoch=2, num_images=30)
    assert following.next_adoption(6, 3) is None
    assert len(images.index) == images.store.capacity == 30
    assert images.index.image_ids.tolist() == dataset[1]["image_id"].tolist()
    assert images.findings.num_read == 0


def test_an_attempt_repeats_what_was_adopted_before_at_the_same_steps_and_then_takes_new_images(
    dataset: tuple[Path, Any],
) -> None:
    images, added = opened(dataset, 20), Added()
    added.put(ImagesAdded(blobs=(dataset[1][20:].tobytes(),)))
    earlier = [Adoption(step=4, epoch=2, num_images=12), Adoption(step=8, epoch=3, num_images=20)]
    following = DatasetFollowing(images, earlier, added)
    found = [following.next_adoption(step, epoch) for step, epoch in ((2, 1), (4, 2), (6, 3), (8, 4), (10, 5), (12, 6))]
    assert found == [
        None,
        Adoption(step=4, epoch=2, num_images=12),
        None,
        Adoption(step=8, epoch=4, num_images=20),
        Adoption(step=10, epoch=5, num_images=30),
        None,
    ]
