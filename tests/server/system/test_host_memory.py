"""Memory is planned by the least of what the machine and its control groups allow. The trees are made by hand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from manyview_server.system.host_memory import HostMemory, host_memory

MIB = 1 << 20
UNLIMITED_V1 = "9223372036854771712"
V2 = "30 23 0:26 {top} {point} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 25 0:29 {top} {point} rw,relatime shared:9 - cgroup cgroup rw,memory"


def tree(
    root: Path,
    *,
    cgroup: str = "",
    mounts: tuple[str, ...] = (),
    files: Mapping[str, str] | None = None,
    available_mib: int = 8000,
) -> HostMemory:
    """A machine of 16,000 MiB with these lines in its `proc` and these files below it."""
    meminfo = f"MemTotal: {16000 * 1024} kB\nMemFree: 17 kB\nMemAvailable: {available_mib * 1024} kB\n"
    given = {"proc/meminfo": meminfo, "proc/self/cgroup": cgroup, "proc/self/mountinfo": "\n".join(mounts)}
    for name, text in {**given, **(files or {})}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return host_memory(root)


def v2(top: str = "/", point: str = "/sys/fs/cgroup") -> str:
    return V2.format(top=top, point=point)


def v1(top: str = "/", point: str = "/sys/fs/cgroup/memory") -> str:
    return V1.format(top=top, point=point)


def group_v2(at: str, maximum: str, *, current: int = 0, inactive: int = 0, high: str = "max") -> dict[str, str]:
    return {
        f"{at}/memory.max": f"{maximum}\n",
        f"{at}/memory.high": f"{high}\n",
        f"{at}/memory.current": f"{current * MIB}\n",
        f"{at}/memory.stat": f"anon 77\nfile 5\ninactive_file {inactive * MIB}\nactive_file 3\n",
    }


def group_v1(at: str, limit: str, *, usage: int = 0, inactive: int = 0) -> dict[str, str]:
    return {
        f"{at}/memory.limit_in_bytes": f"{limit}\n",
        f"{at}/memory.usage_in_bytes": f"{usage * MIB}\n",
        f"{at}/memory.stat": f"cache 1\ninactive_file 1\ntotal_inactive_file {inactive * MIB}\n",
    }


def mib(found: HostMemory) -> tuple[int, int]:
    return found.limit_bytes // MIB, found.available_bytes // MIB


def test_without_control_groups_the_machine_is_the_limit(tmp_path: Path) -> None:
    assert mib(tree(tmp_path)) == (16000, 8000)


def test_a_container_with_its_own_view_of_version_2_is_limited_by_its_top_group(tmp_path: Path) -> None:
    files = group_v2("sys/fs/cgroup", str(512 * MIB), current=300, inactive=100)
    assert mib(tree(tmp_path, cgroup="0::/\n", mounts=(v2(),), files=files)) == (512, 312)


def test_a_slice_above_the_process_limits_it_too(tmp_path: Path) -> None:
    """The limit of a systemd slice stands two directories above the service's own, which says "max"."""
    at = "sys/fs/cgroup/user.slice"
    files = {
        **group_v2(at, str(2048 * MIB), current=1900, inactive=200),
        **group_v2(f"{at}/app.slice", "max"),
        **group_v2(f"{at}/app.slice/manyview.service", str(4096 * MIB), current=1000),
    }
    found = tree(tmp_path, cgroup="0::/user.slice/app.slice/manyview.service\n", mounts=(v2(),), files=files)
    assert mib(found) == (2048, 348)


def test_the_soft_limit_of_version_2_counts_since_the_kernel_slows_processes_above_it(tmp_path: Path) -> None:
    files = group_v2("sys/fs/cgroup/job", str(1024 * MIB), high=str(256 * MIB), current=56)
    assert mib(tree(tmp_path, cgroup="0::/job\n", mounts=(v2(),), files=files)) == (256, 200)


def test_version_1_is_read_where_its_controller_is_mounted(tmp_path: Path) -> None:
    files = {
        **group_v1("sys/fs/cgroup/memory", UNLIMITED_V1),
        **group_v1("sys/fs/cgroup/memory/a/b", str(512 * MIB), usage=500, inactive=250),
    }
    lines = "11:cpu,cpuacct:/elsewhere\n4:memory:/a/b\n1:name=systemd:/c\n"
    assert mib(tree(tmp_path, cgroup=lines, mounts=(v1(),), files=files)) == (512, 262)


def test_a_container_that_sees_the_host_s_names_is_found_below_what_is_mounted(tmp_path: Path) -> None:
    """Version 1 without a namespace: `cgroup` names the host's path, and the container mounts that group alone."""
    files = group_v1("sys/fs/cgroup/memory", str(512 * MIB), usage=12)
    found = tree(tmp_path, cgroup="4:memory:/docker/1f0c\n", mounts=(v1("/docker/1f0c"),), files=files)
    assert mib(found) == (512, 500)


def test_a_container_that_mounts_the_host_s_tree_finds_its_group_in_it(tmp_path: Path) -> None:
    files = {
        **group_v2("host/cgroup", "max"),
        **group_v2("host/cgroup/docker/1f0c", str(600 * MIB), current=100),
    }
    found = tree(tmp_path, cgroup="0::/docker/1f0c\n", mounts=(v2(point="/host/cgroup"),), files=files)
    assert mib(found) == (600, 500)


def test_a_mount_hides_an_older_one_at_the_same_place(tmp_path: Path) -> None:
    files = group_v1("sys/fs/cgroup/memory", str(512 * MIB), usage=2)
    found = tree(tmp_path, cgroup="4:memory:/b4\n", mounts=(v1(), v1("/b4")), files=files)
    assert mib(found) == (512, 510)


@pytest.mark.parametrize("path", ["/../sibling", "/not/mounted"])
def test_a_group_that_cannot_be_seen_is_stood_for_by_the_one_that_is_mounted(tmp_path: Path, path: str) -> None:
    files = group_v2("sys/fs/cgroup", str(700 * MIB), current=200)
    assert mib(tree(tmp_path, cgroup=f"0::{path}\n", mounts=(v2(),), files=files)) == (700, 500)


def test_with_both_versions_the_controller_s_tree_decides(tmp_path: Path) -> None:
    files = {
        **group_v1("sys/fs/cgroup/memory/s", str(900 * MIB), usage=100),
        "sys/fs/cgroup/unified/s/cgroup.procs": "",
    }
    mounts = (v2(point="/sys/fs/cgroup/unified"), v1())
    assert mib(tree(tmp_path, cgroup="3:memory:/s\n0::/s\n", mounts=mounts, files=files)) == (900, 800)


def test_no_limit_and_limits_above_the_machine_s_memory_leave_the_machine_s(tmp_path: Path) -> None:
    files = {**group_v2("sys/fs/cgroup/a", "max", current=15_999), **group_v2("sys/fs/cgroup", str(1 << 50))}
    assert mib(tree(tmp_path, cgroup="0::/a\n", mounts=(v2(),), files=files)) == (16000, 8000)


def test_the_machine_s_own_lack_of_memory_counts_within_a_generous_group(tmp_path: Path) -> None:
    files = group_v2("sys/fs/cgroup", str(2000 * MIB))
    assert mib(tree(tmp_path, cgroup="0::/\n", mounts=(v2(),), files=files, available_mib=50)) == (2000, 50)


def test_a_group_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    files = group_v2("sys/fs/cgroup", str(100 * MIB), current=130, inactive=10)
    assert mib(tree(tmp_path, cgroup="0::/\n", mounts=(v2(),), files=files)) == (100, 0)


def test_files_that_are_missing_or_damaged_limit_nothing(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/a/memory.max": "garbage\n", "sys/fs/cgroup/a/memory.current": ""}
    mounts = ("torn line", v2())
    assert mib(tree(tmp_path, cgroup="\nnonsense\n0::/a\n", mounts=mounts, files=files)) == (16000, 8000)


def test_a_blank_in_a_mount_point_is_read_as_the_kernel_writes_it(tmp_path: Path) -> None:
    files = group_v2("my groups", str(512 * MIB), current=12)
    found = tree(tmp_path, cgroup="0::/\n", mounts=(v2(point=r"/my\040groups"),), files=files)
    assert mib(found) == (512, 500)


def test_without_any_file_the_machine_is_asked(tmp_path: Path) -> None:
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert host_memory(tmp_path) == HostMemory(limit_bytes=machine, available_bytes=machine)


def test_this_machine_has_some() -> None:
    found = host_memory()
    assert 0 < found.available_bytes <= found.limit_bytes
