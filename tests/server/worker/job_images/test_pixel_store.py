from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from torch import Tensor

from manyview_server.system.host_memory import HostMemory, host_memory
from manyview_server.worker.job_images import pixel_store
from manyview_server.worker.job_images.pixel_store import PixelStore
from support.learning.pretend_device import DEVICE, pretending

CPU = torch.device("cpu")
SIZE = 4
IMAGE_BYTES = 3 * SIZE**2


def pictures(numbers: list[int], device: torch.device = CPU) -> Tensor:
    """Images of which each has its number in all pixels."""
    return torch.tensor(numbers, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, SIZE, SIZE).to(device)


def keep(store: PixelStore, *numbers: int) -> None:
    rows, images = np.array(numbers), pictures([number % 256 for number in numbers])
    store.keep(rows, np.arange(len(rows)), images.to(store.device, non_blocking=True), images)


def numbers(store: PixelStore, *rows: int) -> list[int]:
    taken = store.take(np.array(rows)).cpu()
    assert torch.equal(taken, taken[:, :1, :1, :1].expand_as(taken))
    return taken[:, 0, 0, 0].tolist()


def kept(store: PixelStore, num_rows: int) -> list[int]:
    return np.flatnonzero(store.is_kept(np.arange(num_rows))).tolist()


def test_the_first_rows_that_come_are_kept_until_there_is_no_room() -> None:
    store = PixelStore(SIZE, CPU, 4 * IMAGE_BYTES + 1, 10)
    assert (store.capacity, store.device_capacity, store.num_kept) == (4, 4, 0)
    keep(store, 7, 2)
    keep(store, 2, 9, 9, 0, 5)
    assert kept(store, 10) == [0, 2, 7, 9]
    assert numbers(store, 9, 0, 7, 7, 2) == [9, 0, 7, 7, 2]
    keep(store, 1)
    assert store.num_kept == 4


@pytest.mark.parametrize("cache_bytes", [0, IMAGE_BYTES - 1])
def test_without_room_for_one_image_nothing_is_kept(cache_bytes: int) -> None:
    store = PixelStore(SIZE, CPU, cache_bytes, 3)
    keep(store, 0, 1)
    assert (store.capacity, kept(store, 3)) == (0, [])
    assert store.take(np.array([], dtype=np.int64)).shape == (0, 3, SIZE, SIZE)


def test_a_store_that_grows_moves_no_image_and_at_least_doubles() -> None:
    store = PixelStore(SIZE, CPU, 50 * IMAGE_BYTES, 10)
    keep(store, *range(10))
    before = store.take(np.array([3])).data_ptr(), store._blocks[0].pixels.data_ptr()
    for num_rows in (11, 12, 40, 100):
        store.grow(num_rows)
    assert store._blocks[0].pixels.data_ptr() == before[1]
    assert [len(block.pixels) for block in store._blocks] == [10, 10, 20, 10]
    keep(store, *range(10, 100))
    assert kept(store, 100) == list(range(50))
    assert numbers(store, 49, 0, 15, 30, 1) == [49, 0, 15, 30, 1]


@pytest.mark.parametrize(("available_images", "capacity"), [(50, 20), (39, 19), (0, 0)])
def test_images_on_a_cpu_take_half_of_the_memory_that_is_available(
    monkeypatch: pytest.MonkeyPatch, available_images: int, capacity: int
) -> None:
    memory = HostMemory(limit_bytes=1 << 40, available_bytes=available_images * IMAGE_BYTES)
    monkeypatch.setattr(pixel_store, "host_memory", lambda: memory)
    assert PixelStore(SIZE, CPU, 1 << 30, 20).capacity == capacity


def test_room_that_is_promised_and_not_used_yet_is_not_promised_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = HostMemory(limit_bytes=1 << 40, available_bytes=60 * IMAGE_BYTES)
    monkeypatch.setattr(pixel_store, "host_memory", lambda: memory)
    store = PixelStore(SIZE, CPU, 1 << 30, 20)
    keep(store, *range(5))
    store.grow(100)
    assert store.capacity == (60 + 5) // 2


def test_beside_a_device_that_is_full_images_lie_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = HostMemory(limit_bytes=1 << 40, available_bytes=12 * IMAGE_BYTES)
    monkeypatch.setattr(pixel_store, "host_memory", lambda: memory)
    with pretending() as device:
        store = PixelStore(SIZE, DEVICE, 3 * IMAGE_BYTES, 20)
        assert (store.device_capacity, store.capacity) == (3, 9)
        keep(store, 5, 4, 3, 2)
        keep(store, *range(8, 20))
        assert not device.waits, "nothing waits for the device"
        assert kept(store, 20) == [2, 3, 4, 5, 8, 9, 10, 11, 12]
        assert store.take(np.array([2, 5])).device == DEVICE
        assert numbers(store, 12, 5, 2, 9, 4) == [12, 5, 2, 9, 4]
        assert numbers(store, 3, 4) == [3, 4]
        assert numbers(store, 9, 2) == [9, 2]


@pytest.mark.parametrize(("most", "on_device", "capacity"), [(1000, 3, 20), (7, 3, 7), (2, 2, 2), (0, 0, 0)])
def test_a_limit_holds_for_the_device_and_the_memory_together(most: int, on_device: int, capacity: int) -> None:
    with pretending():
        store = PixelStore(SIZE, DEVICE, 3 * IMAGE_BYTES, 20, most * IMAGE_BYTES)
        store.grow(20)
        assert (store.device_capacity, store.capacity) == (on_device, capacity)


@pytest.mark.parametrize("device", [CPU, DEVICE])
def test_a_store_that_grows_stays_within_its_limits_and_half_of_the_memory_of_its_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    monkeypatch.setattr(pixel_store, "host_memory", lambda: host_memory(tmp_path))
    most, cache, random = 300, 200, Random(0)
    with pretending() if device == DEVICE else nullcontext():
        for available in (0, 1, 50, 150, 399, 1000):
            limit_group(tmp_path, available, taken=0)
            store, num_rows = PixelStore(SIZE, device, cache * IMAGE_BYTES, 0, most * IMAGE_BYTES), 0
            for _ in range(8):
                num_rows += random.randrange(1, 150)
                store.grow(num_rows)
                keep(store, *range(random.randrange(num_rows) + 1))
                on_device = 0 if device == CPU else store.device_capacity
                limit_group(tmp_path, available, taken=max(0, store.num_kept - on_device))
                assert store.device_capacity <= cache
                assert store.capacity <= most
                assert store.capacity - on_device <= available // 2
            store.grow(2000)
            half = available // 2
            assert store.capacity == (min(cache, half) if device == CPU else min(most, cache + half))


def limit_group(root: Path, num_images: int, taken: int) -> None:
    """Write a machine whose control group allows the memory of so many images, of which some is taken."""
    files = {
        "proc/meminfo": f"MemTotal: {1 << 30} kB\nMemAvailable: {1 << 30} kB",
        "proc/self/cgroup": "0::/",
        "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
        "sys/fs/cgroup/memory.max": str(num_images * IMAGE_BYTES),
        "sys/fs/cgroup/memory.current": str(taken * IMAGE_BYTES),
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_on_a_cpu_images_are_stored_taken_and_picked_pixel_by_pixel() -> None:
    images = torch.randint(0, 256, (5, 3, SIZE, SIZE), dtype=torch.uint8)
    store = PixelStore(SIZE, CPU, 5 * IMAGE_BYTES, 5)
    store.keep(np.arange(5), np.arange(5), images, images)
    taken = store.take(np.array([3, 0, 3]))
    assert torch.equal(taken, images[[3, 0, 3]])
    assert taken.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixel_store.picked(taken, torch.tensor([1, 1])), images[[0, 0]])
    assert torch.equal(pixel_store.picked(images, torch.tensor([4])), images[4:])
    assert pixel_store.picked(images, torch.tensor([4])).is_contiguous()
