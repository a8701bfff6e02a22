"""Dockerfile and compose files keep what they promise; `make image-test` tries it for real."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from manyview_server.config import ServeSettings

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "docker-compose.yml").read_text()
ALL = {path.name: path.read_text() for path in ROOT.glob("*compose*.yml")}


def instructions(name: str) -> list[str]:
    """The arguments of an instruction in the Dockerfile's last stage, with continued lines joined."""
    joined = re.sub(r"\\\n", "", DOCKERFILE)
    return re.findall(rf"^{name} (.+)$", joined[joined.rindex("\nFROM ") :], flags=re.MULTILINE)


def test_the_server_runs_as_a_numbered_user_without_privileges() -> None:
    (user,) = instructions("USER")
    assert all(int(part) >= 10_000 for part in user.split(":"))
    assert f"--uid {user.partition(':')[0]} " in DOCKERFILE


def test_whether_it_serves_is_asked_for_by_the_command_line() -> None:
    (check,) = instructions("HEALTHCHECK")
    assert check.endswith('CMD ["manyview", "health"]')
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert instructions("VOLUME") == ["/data"]


def test_every_package_comes_from_a_hashed_file_or_from_the_system() -> None:
    joined = re.sub(r"\\\n\s*", " ", DOCKERFILE)
    commands = [part for line in joined.splitlines() for part in re.split("&&|;;", line) if "pip" in part.split("#")[0]]
    installing = [part for part in commands if re.search(r"pip (install|sync)", part)]
    unhashed = [part for part in installing if "--require-hashes" not in part]
    assert len(installing) == 8
    wheel, builds_for_the_cpu = unhashed
    assert "--no-deps" in wheel
    assert "/dist/*.whl" in wheel
    assert "--no-deps" in builds_for_the_cpu
    assert '--default-index "$TORCH_INDEX"' in builds_for_the_cpu
    for name in re.findall(r"/requirements/([\w.-]+\.txt)", DOCKERFILE):
        assert "--hash=sha256:" in (ROOT / "requirements" / name).read_text()


def test_the_pins_are_parted_into_those_of_torch_of_cuda_and_of_both_images(tmp_path: Path) -> None:
    (program,) = re.findall(r"&& awk '(.+?)' /requirements/server.txt", re.sub(r"\\\n\s*", " ", DOCKERFILE))
    pins = (ROOT / "requirements" / "server.txt").read_text()
    subprocess.run(["awk", program], input=pins, text=True, cwd=tmp_path, check=True)
    parts = {path.stem: path.read_text() for path in tmp_path.iterdir()}
    names = {part: set(re.findall(r"^([\w-]+)==", text, flags=re.MULTILINE)) for part, text in parts.items()}
    assert names["torch"] == {"torch", "torchvision"}
    assert {"nvidia-cublas", "cuda-bindings", "triton"} <= names["cuda"]
    assert {"timm", "numpy", "grpcio", "networkx"} <= names["common"]
    assert sorted("".join(parts.values()).splitlines()) == sorted(pins.splitlines())


@pytest.mark.parametrize(
    "line",
    [
        "read_only: true",
        "init: true",
        "cap_drop: [ALL]",
        'security_opt: ["no-new-privileges:true"]',
        "pids_limit: 4096",
        "restart: unless-stopped",
        '- "${MANYVIEW_BIND:-127.0.0.1}:${MANYVIEW_PORT:-50051}:50051"',
    ],
)
def test_the_compose_file_locks_the_container_up(line: str) -> None:
    assert line in [found.strip() for found in COMPOSE.splitlines()]
    assert "noexec" in COMPOSE


def test_no_compose_file_opens_what_the_first_one_locks() -> None:
    for text in ALL.values():
        assert not re.search(r"privileged|network_mode|pid:|docker\.sock|cap_add", text)


def test_the_stop_waits_for_longer_than_the_server_drains() -> None:
    grace_s = int(re.findall(r"stop_grace_period: (\d+)s", COMPOSE)[0])
    assert grace_s >= ServeSettings.model_fields["drain_s"].default + 10


def test_every_setting_in_a_compose_file_is_one() -> None:
    names = {name for text in ALL.values() for name in re.findall(r"MANYVIEW_SERVER_(\w+):", text)}
    assert {"DEVICE", "TOKEN_FILE", "TLS_CERT", "TLS_KEY"} <= names
    assert {name.lower() for name in names} <= ServeSettings.model_fields.keys()
