"""Cores and memory are shared out."""

from __future__ import annotations

import os

import pytest

from manyview_server.supervise.budget import CoreBudget, available_cores, available_memory, cache_bytes, oom_kills


def test_the_embedder_gives_up_half_of_the_cores_while_a_trainer_runs():
    budget = CoreBudget(8)
    seen: list[int] = []
    budget.on_change(lambda: seen.append(budget.embedder_threads))
    assert (budget.trainer_threads, budget.embedder_threads) == (8, 8)
    budget.trainer_started()
    budget.trainer_started()
    budget.trainer_ended()
    budget.trainer_ended()
    assert seen == [4, 4, 4, 8]


def test_everyone_has_at_least_one_core():
    budget = CoreBudget(1)
    budget.trainer_started()
    assert (budget.trainer_threads, budget.embedder_threads) == (1, 1)
    with pytest.raises(ValueError, match="num_cores"):
        CoreBudget(0)


def test_a_container_s_quota_bounds_the_cores(tmp_path):
    affinity = len(os.sched_getaffinity(0))
    assert available_cores(tmp_path) == affinity
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert available_cores(tmp_path) == affinity
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert available_cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("20000 100000\n")
    assert available_cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("100000000 100000\n")
    assert available_cores(tmp_path) == affinity


def test_the_older_kind_of_quota_is_read_too(tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cores(tmp_path) == 1
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert available_cores(tmp_path) == len(os.sched_getaffinity(0))


def test_a_container_s_limit_bounds_the_memory(tmp_path):
    machine = available_memory(tmp_path)
    assert machine > 100 << 20
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) == machine
    (tmp_path / "memory.max").write_text("1048576\n")
    assert available_memory(tmp_path) == 1 << 20


def test_the_kernel_s_kills_are_counted_in_the_container_and_on_the_machine(tmp_path):
    vmstat = tmp_path / "vmstat"
    assert oom_kills(tmp_path, vmstat) == 0
    vmstat.write_text("nr_free_pages 7\noom_kill 2\n")
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 1\n")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
    assert oom_kills(tmp_path, vmstat) == 7


def test_decoded_images_take_a_third_of_a_device():
    assert cache_bytes(3 << 30, "cuda:0") == 1 << 30
    assert cache_bytes(1 << 60, "cpu") == int(available_memory() / 3)
