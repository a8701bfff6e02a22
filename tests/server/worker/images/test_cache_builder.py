from __future__ import annotations

import hashlib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manyview_server.image_header import ImageHeader
from manyview_server.link.decode_notes import ALONE, DecodeNotes
from manyview_server.store.images.shards import SNAPSHOT_DTYPE, image_id_of
from manyview_server.supervise.timers.job_seconds import Workload
from manyview_server.system.host_memory import HostMemory
from manyview_server.worker.images import cache_builder, decoder, scratch
from manyview_server.worker.images.cache import DarkImage, ImageCache
from manyview_server.worker.images.cache_builder import CacheBuilder, choose_size
from manyview_server.worker.images.decoder import Picture
from manyview_server.worker.images.rgb import PixelRule
from manyview_server.worker.images.scratch import ScratchDiskFull
from support.learning import worker_harness


def decode(directory: Path, snapshot: np.ndarray, size: int = 16, **changes: Any) -> ImageCache:
    return builder(directory, size, **changes).decode(snapshot, go_on)


def go_on() -> bool:
    return False


def builder(directory: Path, size: int = 16, **changes: Any) -> CacheBuilder:
    options = {
        "dataset_dir": directory,
        "size": size,
        "device": torch.device("cpu"),
        "cache_bytes": 1 << 30,
        "scratch_dir": directory / "scratch",
        "num_threads": 2,
    }
    return CacheBuilder(**{**options, **changes})


def test_every_image_lies_in_its_row_whatever_the_number_of_threads(tmp_path: Path) -> None:
    pictures = [worker_harness.picture(i % 3, i) for i in range(150)]
    snapshot = worker_harness.write_dataset(
        tmp_path, [(worker_harness.encoded(p), i % 3) for i, p in enumerate(pictures)]
    )
    one, three = decode(tmp_path, snapshot, num_threads=1), decode(tmp_path, snapshot, num_threads=3)
    assert np.array_equal(one.pixels.permute(0, 2, 3, 1).numpy(), np.stack(pictures))
    assert torch.equal(one.pixels, three.pixels)
    assert one.labels.tolist() == [i % 3 for i in range(150)]
    assert one.readable.all()
    assert one.location == "device"


def test_each_image_is_counted_once_as_it_is_decoded(tmp_path: Path) -> None:
    pictures = [(worker_harness.encoded(worker_harness.picture(0, i)), 0) for i in range(70)]
    snapshot = worker_harness.write_dataset(tmp_path, [*pictures, (b"no image", 0)])
    counted: list[int] = []
    builder(tmp_path).decode(snapshot, go_on, on_images=counted.append)
    assert len(counted) > 1
    assert sum(counted) == 71


def test_any_shape_becomes_a_square_with_its_true_size_beside_it(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (20, 50, 3), dtype=np.uint8)
    found = decode(tmp_path, worker_harness.write_dataset(tmp_path, [(worker_harness.encoded(wide), 0)]), size=24)
    assert found.pixels.shape == (1, 3, 24, 24)
    assert found.sizes.tolist() == [[20, 50]]


def test_unreadable_images_are_named_and_the_others_are_kept(tmp_path: Path) -> None:
    images = worker_harness.digits(6)
    images[2] = (b"junk", 0)
    snapshot = worker_harness.write_dataset(tmp_path, images)
    snapshot["image_id"][4] += 1  # what is stored is not what the index says
    snapshot["shard"][5] = 9  # lost with its shard
    found = decode(tmp_path, snapshot)
    assert found.readable.tolist() == [True, True, False, True, False, False]
    by_id = {image.image_id: image.reason for image in found.unreadable}
    ids = snapshot["image_id"].tolist()
    assert by_id == {ids[2]: "FORMAT_NOT_ALLOWED", ids[4]: "CHECKSUM_MISMATCH", ids[5]: "IMAGE_LOST"}


def test_images_of_sixteen_bits_that_are_dark_are_named_also_when_more_come(tmp_path: Path) -> None:
    levels = [np.full((16, 16), level, np.uint16) for level in (4095, 65_535, 0, 16_383)]
    images = [(worker_harness.encoded(image), 0) for image in levels]
    snapshot = worker_harness.write_dataset(tmp_path, [*images, *worker_harness.digits(1)])
    ids, growing = snapshot["image_id"].tolist(), builder(tmp_path)
    first = growing.decode(snapshot[:2], go_on)
    assert first.dark == (DarkImage(image_id=ids[0], used_bits=12),)
    whole = growing.extend(first, growing.decode(snapshot[2:], go_on))
    assert [(image.image_id, image.used_bits) for image in whole.dark] == [(ids[0], 12), (ids[3], 14)]
    assert whole.first(3).dark == first.dark


def test_a_cache_that_does_not_fit_lies_in_a_file_without_a_name(tmp_path: Path) -> None:
    snapshot = worker_harness.write_dataset(tmp_path, worker_harness.digits(20))
    filed, held = decode(tmp_path, snapshot, cache_bytes=100), decode(tmp_path, snapshot)
    assert filed.location == "file"
    assert torch.equal(filed.pixels, held.pixels)
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(("available_images", "location"), [(50, "device"), (39, "file")])
def test_images_stay_in_memory_only_while_half_of_what_is_available_holds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available_images: int, location: str
) -> None:
    memory = HostMemory(limit_bytes=1 << 40, available_bytes=available_images * 768)
    monkeypatch.setattr(cache_builder, "host_memory", lambda: memory)
    assert decode(tmp_path, worker_harness.write_dataset(tmp_path, worker_harness.digits(20))).location == location


def test_images_that_find_no_room_are_refused_before_any_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = worker_harness.write_dataset(tmp_path, worker_harness.digits(20))
    monkeypatch.setattr(scratch, "free_bytes", lambda directory: 20 * 768)
    monkeypatch.setattr(scratch, "reserve_bytes", lambda directory: 1)
    monkeypatch.setattr(decoder, "read_picture", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ScratchDiskFull, match="scratch file of 15,360 bytes"):
        decode(tmp_path, snapshot, cache_bytes=100)


@pytest.mark.parametrize(("available_images", "refused"), [(26, False), (24, True)])
def test_a_full_disk_beside_memory_that_holds_the_images_stops_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available_images: int, refused: bool
) -> None:
    memory = HostMemory(limit_bytes=1 << 40, available_bytes=available_images * 768)
    monkeypatch.setattr(cache_builder, "host_memory", lambda: memory)
    monkeypatch.setattr(scratch, "free_bytes", lambda directory: 0)
    snapshot = worker_harness.write_dataset(tmp_path, worker_harness.digits(20))
    with pytest.raises(ScratchDiskFull) if refused else nullcontext():
        assert decode(tmp_path, snapshot).location == "device"


def test_images_that_come_later_do_without_spare_room_where_the_disk_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = worker_harness.write_dataset(tmp_path, worker_harness.digits(12))
    growing = builder(tmp_path, cache_bytes=100)
    cache = growing.decode(snapshot[:10], go_on)
    more = growing.decode(snapshot[10:], go_on)
    monkeypatch.setattr(scratch, "reserve_bytes", lambda directory: 0)
    monkeypatch.setattr(scratch, "free_bytes", lambda directory: 12 * 768)
    assert len(growing.extend(cache, more).storage) == 12
    monkeypatch.setattr(scratch, "free_bytes", lambda directory: 20 * 768)
    assert len(growing.extend(cache, more).storage) == 20


def test_a_stop_leaves_the_rest_unread(tmp_path: Path) -> None:
    snapshot = worker_harness.write_dataset(tmp_path, worker_harness.digits(20))
    assert not builder(tmp_path).decode(snapshot, lambda: True).pixels.any()


@pytest.mark.parametrize("cache_bytes", [1 << 30, 20 * 768, 100])
def test_images_that_come_later_lie_behind_the_others_as_if_all_had_come_at_once(
    tmp_path: Path, cache_bytes: int
) -> None:
    images = worker_harness.digits(40)
    images[25] = (b"junk", 3)
    snapshot = worker_harness.write_dataset(tmp_path, images)
    whole = decode(tmp_path, snapshot)
    growing = builder(tmp_path, cache_bytes=cache_bytes)
    cache = first = growing.decode(snapshot[:10], go_on)
    before = first.pixels.clone()
    for start, end in ((10, 12), (12, 30), (30, 30), (30, 40)):
        cache = growing.extend(cache, growing.decode(snapshot[start:end], go_on, beside_training=True))
        assert len(cache) == end
    assert torch.equal(first.pixels, before), "who holds the old one may go on with it"
    for name in ("pixels", "sizes", "image_ids", "labels", "readable"):
        assert torch.equal(getattr(cache, name), getattr(whole, name)), name
    assert cache.unreadable == whole.unreadable
    assert [len(cache.first(n).unreadable) for n in (25, 26)] == [0, 1]
    assert torch.equal(cache.first(12).pixels, whole.pixels[:12])
    assert cache.location == ("device" if cache_bytes > 100 and len(cache.storage) * 768 <= cache_bytes else "file")


def test_an_image_that_kills_decoders_is_not_decoded_again(tmp_path: Path) -> None:
    snapshot = worker_harness.write_dataset(tmp_path, worker_harness.digits(5))
    other_id, image_id = snapshot["image_id"][[0, 3]].tolist()
    found = decode(tmp_path, snapshot, quarantined={image_id: "DECODER_CRASHED", other_id: "DECODE_TOO_SLOW"})
    reasons = [(image.image_id, image.reason) for image in found.unreadable]
    assert reasons == [(other_id, "DECODE_TOO_SLOW"), (image_id, "DECODER_CRASHED")]
    assert found.readable.tolist() == [False, True, True, False, True]


def test_each_thread_notes_what_it_decodes_and_a_suspect_is_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = worker_harness.digits(150)
    snapshot = worker_harness.write_dataset(tmp_path, images)
    notes, seen = DecodeNotes.private(), []
    decode_really = decoder.read_picture

    def decode_and_look(data: bytes, header: ImageHeader, rule: PixelRule) -> Picture:
        noted = notes.read()
        alone = [note.kind for note in noted] == [ALONE]
        seen.append((image_id_of(hashlib.sha256(data).digest()), (alone, tuple(note.item for note in noted))))
        return decode_really(data, header, rule)

    monkeypatch.setattr(decoder, "read_picture", decode_and_look)
    suspects = snapshot["image_id"][[7, 140]].tolist()
    builder(tmp_path, notes=notes, suspects={*suspects, 12345}).decode(snapshot, go_on)
    assert seen[:2] == [(suspect, (True, (suspect,))) for suspect in suspects]
    del seen[:2]
    assert len(seen) == 150
    for image_id, (alone, noted) in seen:
        assert image_id in noted
        assert not alone
    assert notes.read() == ()


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
def test_the_size_is_the_images_own_where_all_are_small_squares(
    sides: list[tuple[int, int]], decode_size: int | None, expected: int
) -> None:
    snapshot = np.zeros(len(sides), SNAPSHOT_DTYPE)
    snapshot["width"], snapshot["height"] = np.array(sides).T
    assert choose_size(snapshot, 32, decode_size) == expected


@pytest.mark.parametrize("side", [20, 63, 64, 65])
@pytest.mark.parametrize("decode_size", [None, 48])
def test_the_front_estimates_with_the_size_that_the_trainer_chooses(side: int, decode_size: int | None) -> None:
    snapshot = np.zeros(3, SNAPSHOT_DTYPE)
    snapshot["width"] = snapshot["height"] = side
    workload = Workload(num_images=3, num_labelled=0, pixels=side**2, short_side=side, common_side=side)
    estimated = workload.decode_size({"image_size": 32, "decode_size": decode_size})
    assert estimated == choose_size(snapshot, 32, decode_size)
