"""README's layout and route name folders and files that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import typer

from manyview._cli.main import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_layout_names_every_folder_of_the_server_and_of_the_sdk() -> None:
    layout = README[README.index("## Layout") :]
    named = set(re.findall(r"([\w]+)/", layout))
    for root in ("client/manyview", "server/manyview_server"):
        folders = {path.parent.name for path in ROOT.glob(f"{root}/*/*.py")} | {
            path.parent.name for path in ROOT.glob(f"{root}/*/*/*.py") if path.parent.parent.name != "methods"
        }
        assert folders - named == set()


def test_the_route_names_files_that_exist() -> None:
    route = README[README.index("## The route") : README.index("## Layout")]
    files = re.findall(r"`((?:client|server|worker)/[^`]+\.py)`", route)
    assert len(files) > 8
    for file in files:
        path = file.replace("server/…/", "server/manyview_server/")
        assert (ROOT / path).exists() or (ROOT / "server/manyview_server" / path).exists(), file


def test_every_command_of_the_readme_is_one() -> None:
    commands = typer.main.get_command(app)
    lines = re.findall(r"^manyview (.+)$", README, flags=re.MULTILINE)
    assert len(lines) >= 5
    for name, *arguments in map(shlex.split, lines):
        commands.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]


def test_every_link_and_make_target_of_the_readme_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)", README)) <= targets
