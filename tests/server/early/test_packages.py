"""A client without the extra `server` says so in one line when its user starts a server."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from manyview_server import __main__
from manyview_server.early import packages

ROOT = Path(__file__).parents[3]


def test_the_list_is_that_of_the_extra() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["server"]
    assert [re.split("[><=]", requirement)[0] for requirement in extra] == list(packages.PACKAGES)
    packages.check()


def test_missing_packages_are_one_line_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda module: None if module in ("torch", "grpc_health") else module)
    assert __main__.main(["serve", "--data", "/nowhere"]) == 1
    assert capsys.readouterr().err == (
        "manyview-server: error: the server is not installed: torch, grpcio-health-checking are missing. "
        'Install the server with: pip install "manyview[server]"\n'
    )
