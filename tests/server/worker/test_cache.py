from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from manyview_server.store.shards import SNAPSHOT_DTYPE
from manyview_server.worker import cache


def decode(directory: Path, snapshot: np.ndarray, size: int = 16, **changes) -> cache.ImageCache:
    options = {
        "device": torch.device("cpu"),
        "cache_bytes": 1 << 30,
        "scratch_dir": directory / "scratch",
        "num_threads": 2,
        "stopped": lambda: False,
    }
    return cache.decode_all(snapshot, directory, size, **{**options, **changes})


def test_every_image_lies_in_its_row_whatever_the_number_of_threads(tmp_path: Path, harness) -> None:
    pictures = [harness.picture(i % 3, i) for i in range(150)]
    snapshot = harness.write_dataset(tmp_path, [(harness.encoded(p), i % 3) for i, p in enumerate(pictures)])
    one, three = decode(tmp_path, snapshot, num_threads=1), decode(tmp_path, snapshot, num_threads=3)
    assert np.array_equal(one.pixels.permute(0, 2, 3, 1).numpy(), np.stack(pictures))
    assert torch.equal(one.pixels, three.pixels)
    assert one.labels.tolist() == [i % 3 for i in range(150)]
    assert one.readable.all()
    assert one.location == "device"


def test_any_shape_becomes_a_square_with_its_true_size_beside_it(tmp_path: Path, harness) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (20, 50, 3), dtype=np.uint8)
    found = decode(tmp_path, harness.write_dataset(tmp_path, [(harness.encoded(wide), 0)]), size=24)
    assert found.pixels.shape == (1, 3, 24, 24)
    assert found.sizes.tolist() == [[20, 50]]


def test_unreadable_images_are_named_and_the_others_are_kept(tmp_path: Path, harness) -> None:
    images = harness.digits(6)
    images[2] = (b"junk", 0)
    snapshot = harness.write_dataset(tmp_path, images)
    snapshot["image_id"][4] += 1  # what is stored is not what the index says
    snapshot["shard"][5] = 9  # lost with its shard
    found = decode(tmp_path, snapshot)
    assert found.readable.tolist() == [True, True, False, True, False, False]
    by_id = {image.image_id: image.reason for image in found.unreadable}
    ids = snapshot["image_id"].tolist()
    assert by_id == {ids[2]: "FORMAT_NOT_ALLOWED", ids[4]: "CHECKSUM_MISMATCH", ids[5]: "IMAGE_LOST"}


def test_a_cache_that_does_not_fit_lies_in_a_file_without_a_name(tmp_path: Path, harness) -> None:
    snapshot = harness.write_dataset(tmp_path, harness.digits(20))
    filed, held = decode(tmp_path, snapshot, cache_bytes=100), decode(tmp_path, snapshot)
    assert filed.location == "file"
    assert torch.equal(filed.pixels, held.pixels)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_stop_leaves_the_rest_unread(tmp_path: Path, harness) -> None:
    snapshot = harness.write_dataset(tmp_path, harness.digits(20))
    assert not decode(tmp_path, snapshot, stopped=lambda: True).pixels.any()


@pytest.mark.parametrize(
    ("sides", "decode_size", "expected"),
    [
        ([(32, 32), (32, 32)], None, 32),
        ([(64, 64), (64, 64)], None, 64),
        ([(65, 65), (65, 65)], None, 64),
        ([(32, 32), (33, 33)], None, 64),
        ([(32, 31), (32, 31)], None, 64),
        ([(32, 32)], 48, 48),
    ],
)
def test_the_size_is_the_images_own_where_all_are_small_squares(sides, decode_size, expected) -> None:
    snapshot = np.zeros(len(sides), SNAPSHOT_DTYPE)
    snapshot["width"], snapshot["height"] = np.array(sides).T
    assert cache.choose_size(snapshot, 32, decode_size) == expected
