"""List the server's pinned packages that a machine lacks, as `name==version` for pip.

torch, torchvision and their dependencies are left out: a machine with a GPU has the versions that fit its driver.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PINS = Path(__file__).parent.parent.parent / "requirements" / "server.txt"
TARGET = {
    "python_version": "3.12",
    "python_full_version": "3.12.3",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
}
"""The machine that wheels are fetched for: CPython 3.12 on Linux, manylinux_2_28_x86_64."""
FAMILIES = (
    {"grpcio", "grpcio-status", "grpcio-health-checking", "grpcio-reflection", "protobuf", "googleapis-common-protos"},
    {"pydantic", "pydantic-core"},
)
"""Packages that only fit each other's versions: if one of them is missing, all are needed as they are pinned."""
OF_THE_MACHINE = re.compile(r"torch|torchvision|triton|cuda-.*|nvidia-.*")


def pinned(text: str | None = None) -> list[Requirement]:
    """Return the requirements of the pins file that apply to the target, without hashes and without those of torch."""
    text = PINS.read_text() if text is None else text
    lines = [line.split("--hash")[0].rstrip(" \\") for line in text.splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith((" ", "#"))]
    return [
        each
        for each in found
        if not OF_THE_MACHINE.fullmatch(canonicalize_name(each.name))
        and (each.marker is None or each.marker.evaluate(dict(TARGET)))
    ]


def installed_version(name: str) -> str | None:
    """Return the version of a package in this environment, or None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def missing(
    requirements: Iterable[Requirement] | None = None, version_of: Callable[[str], str | None] = installed_version
) -> list[str]:
    """Return `name==version` of each pinned package that is not installed in any version, and of its family.

    Packages that the machine has in another version are left as they are, because others may depend on them.
    """
    chosen = pinned() if requirements is None else list(requirements)
    lacking = {each.name for each in chosen if version_of(each.name) is None}
    for family in FAMILIES:
        lacking |= family if family & lacking else set()
    return [f"{each.name}{each.specifier}" for each in chosen if each.name in lacking]


def listed(text: str) -> Callable[[str], str | None]:
    """Return a lookup of the packages that another machine has, by their names in `text`, one a line or between
    commas."""
    names = {canonicalize_name(word.partition("==")[0]) for word in re.split(r"[\s,]+", text) if word}
    return lambda name: "unknown" if canonicalize_name(name) in names else None


def other_versions(version_of: Callable[[str], str | None] = installed_version) -> list[str]:
    """Return a line for each pinned package that is installed in another version."""
    found = []
    for each in pinned():
        version = version_of(each.name)
        if version is not None and not each.specifier.contains(version, prereleases=True):
            found.append(f"{each.name} {version} instead of {str(each.specifier).removeprefix('==')}")
    return found
