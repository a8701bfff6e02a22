from __future__ import annotations

import re

from benchmarks.gpu import wheels

PINS = """
pydantic==2.14.3 \\
    --hash=sha256:00 \\
    --hash=sha256:11
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:22
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:33
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:44
nvidia-cublas==13.4.1.3 ; sys_platform == 'linux' \\
    --hash=sha256:55
torch==2.15.0 \\
    --hash=sha256:66
"""


def test_pins_are_those_of_python_3_12_on_linux_without_torchs_own() -> None:
    assert [str(each.name) + str(each.specifier) for each in wheels.pinned(PINS)] == [
        "pydantic==2.14.3",
        "numpy==2.5.5",
    ]


def test_only_what_is_not_installed_is_missing() -> None:
    installed = {"numpy": "2.5.2"}
    assert wheels.missing(wheels.pinned(PINS), installed.get) == ["pydantic==2.14.3"]


def test_packages_that_fit_only_one_another_are_fetched_together() -> None:
    pins = wheels.pinned("grpcio==1.85.1\ngrpcio-status==1.85.1\nprotobuf==7.36.2\ntimm==1.0.31\n")
    assert wheels.missing(pins, wheels.listed("grpcio, protobuf timm==1.0.9")) == [
        "grpcio==1.85.1",
        "grpcio-status==1.85.1",
        "protobuf==7.36.2",
    ]
    assert wheels.missing(pins, wheels.listed("grpcio\ngrpcio_status\nprotobuf")) == ["timm==1.0.31"]


def test_a_bare_machine_lacks_what_the_server_imports() -> None:
    names = {line.partition("==")[0] for line in wheels.missing(version_of=lambda name: None)}
    assert {"pydantic", "pydantic-settings", "pydantic-core", "simplejpeg"} <= names
    assert {"grpcio", "grpcio-status", "grpcio-health-checking", "grpcio-reflection", "typer", "timm"} <= names
    assert not [name for name in names if re.match(r"torch|nvidia|triton|cuda", name)]


def test_every_missing_package_has_one_exact_version() -> None:
    lines = wheels.missing(version_of=lambda name: None)
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", line) for line in lines), lines
    assert len({line.partition("==")[0] for line in lines}) == len(lines)


def test_packages_in_another_version_are_reported() -> None:
    found = wheels.other_versions(lambda name: "0.0.1" if name == "pillow" else None)
    assert found == ["pillow 0.0.1 instead of 13.0.0"]
