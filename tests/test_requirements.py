"""The pinned requirements: by hash, from no named index, and the same versions in the image as in the tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "requirements"


def pins(name: str) -> set[str]:
    """`package==version ; marker` for each line that pins."""
    text = (FOLDER / name).read_text()
    return {line.removesuffix("\\").strip() for line in text.splitlines() if "==" in line and not line.startswith(" ")}


@pytest.mark.parametrize("name", ["server.txt", "build.txt"])
def test_the_image_is_built_of_the_versions_that_are_tested(name: str) -> None:
    assert pins(name) - pins("dev.txt") == set()


def test_the_image_has_what_the_server_needs_and_no_development_tools() -> None:
    names = {re.split(r"[=\s]", pin)[0] for pin in pins("server.txt")}
    assert {"torch", "torchvision", "timm", "grpcio", "numpy", "typer", "pydantic-settings"} <= names
    assert names & {"pytest", "ruff", "mypy", "hatchling", "scikit-learn", "matplotlib"} == set()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.name)
def test_every_pin_has_hashes_and_no_index_is_named(path: Path) -> None:
    text = path.read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in text
    assert "index-url" not in text
