"""Cores and memory are shared out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from manyview_server.supervise import cores as module
from manyview_server.supervise.cores import CoreBudget, available_cores, cache_bytes, embed_queue_bytes, oom_kills
from manyview_server.system.host_memory import HostMemory, host_memory

AFFINITY = len(os.sched_getaffinity(0))


def tree(root: Path, cgroup: str, mounts: list[str], files: dict[str, str]) -> Path:
    """A directory that looks like a machine whose process is in these control groups."""
    for name, text in {"proc/self/cgroup": cgroup, "proc/self/mountinfo": "\n".join(mounts), **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def version_2(root: Path, cpu_max: str, above: str = "max 100000") -> Path:
    mounts = ["30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw"]
    files = {"sys/fs/cgroup/a/cpu.max": above, "sys/fs/cgroup/a/b/cpu.max": cpu_max}
    return tree(root, "0::/a/b\n", mounts, files)


def version_1(root: Path, quota: int, period: int) -> Path:
    mounts = ["33 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct"]
    at = "sys/fs/cgroup/cpu,cpuacct/a"
    files = {f"{at}/cpu.cfs_quota_us": f"{quota}\n", f"{at}/cpu.cfs_period_us": f"{period}\n"}
    return tree(root, "2:cpu,cpuacct:/a\n", mounts, files)


def test_the_embedder_gives_up_half_of_the_cores_while_a_trainer_runs() -> None:
    budget = CoreBudget(8)
    seen: list[int] = []
    budget.on_change(lambda: seen.append(budget.embedder_threads))
    assert (budget.trainer_threads, budget.embedder_threads) == (8, 8)
    budget.trainer_started()
    budget.trainer_started()
    budget.trainer_ended()
    budget.trainer_ended()
    assert seen == [4, 4, 4, 8]


def test_everyone_has_at_least_one_core() -> None:
    budget = CoreBudget(1)
    budget.trainer_started()
    assert (budget.trainer_threads, budget.embedder_threads) == (1, 1)
    assert CoreBudget(2, num_devices=8).trainer_threads == 1
    with pytest.raises(ValueError, match="num_cores must be at least 1, got 0"):
        CoreBudget(0)
    with pytest.raises(ValueError, match="num_devices must be at least 1, got 0"):
        CoreBudget(8, num_devices=0)


def test_trainers_of_several_devices_share_the_cores_whether_or_not_all_of_them_train() -> None:
    budget = CoreBudget(16, num_devices=4)
    assert budget.trainer_threads == 4
    budget.trainer_started()
    budget.trainer_started()
    assert (budget.trainer_threads, budget.embedder_threads) == (4, 8)


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("max 100000", AFFINITY),
        ("100000 100000", 1),
        ("20000 100000", 1),
        ("100000000 100000", AFFINITY),
        ("", AFFINITY),
        ("50000 0", AFFINITY),
    ],
)
def test_a_container_s_quota_bounds_the_cores(tmp_path: Path, cpu_max: str, cores: Any) -> None:
    assert available_cores(version_2(tmp_path, cpu_max)) == cores


def test_a_quota_of_a_slice_above_bounds_the_cores_too(tmp_path: Path) -> None:
    assert available_cores(version_2(tmp_path, "max 100000", above="100000 100000")) == 1


@pytest.mark.parametrize(("quota", "cores"), [(100_000, 1), (-1, AFFINITY)])
def test_the_older_kind_of_quota_is_read_too(tmp_path: Path, quota: int, cores: Any) -> None:
    assert available_cores(version_1(tmp_path, quota, 100_000)) == cores


def test_without_control_groups_the_affinity_decides(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == AFFINITY


def test_the_kernel_s_kills_are_counted_in_the_container_and_on_the_machine(tmp_path: Path) -> None:
    assert oom_kills(tmp_path) == 0
    mounts = [
        "30 23 0:26 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw",
        "33 25 0:29 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory",
    ]
    files = {
        "proc/vmstat": "nr_free_pages 7\noom_kill 2\n",
        "sys/fs/cgroup/unified/a/memory.events": "low 0\noom 3\noom_kill 1\n",
        "sys/fs/cgroup/unified/memory.events": "oom_kill 100\n",
        "sys/fs/cgroup/memory/b/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
    }
    assert oom_kills(tree(tmp_path, "5:memory:/b\n0::/a\n", mounts, files)) == 7


def test_decoded_images_take_a_third_of_a_device() -> None:
    assert cache_bytes(3 << 30, "cuda:0") == 1 << 30
    assert cache_bytes(1 << 60, "cpu") == int(host_memory().limit_bytes / 3)


@pytest.mark.parametrize(("limit_mib", "queue_mib"), [(512, 32), (128, 16), (4096, 256), (65536, 256)])
def test_images_that_wait_to_be_embedded_take_a_share_of_the_memory_and_at_least_a_message(
    monkeypatch: pytest.MonkeyPatch, limit_mib: int, queue_mib: int
) -> None:
    memory = HostMemory(limit_bytes=limit_mib << 20, available_bytes=0)
    monkeypatch.setattr(module, "host_memory", lambda: memory)
    assert embed_queue_bytes(16 << 20) == queue_mib << 20
