"""README's commands, links and lines of Python are real, and CONTRIBUTING names folders and files that exist."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from pathlib import Path

import pytest
import typer

import manyview
from manyview._cli.main import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
MOST_LINES = 170
RESULTS = {
    "client": manyview.Client, "job": manyview.Job, "near": manyview.QueryNeighbors, "neighbor": manyview.Neighbor,
}  # fmt: skip


def test_readme_can_be_read_in_one_sitting() -> None:
    assert len(README.splitlines()) < MOST_LINES


def test_the_layout_names_every_folder_of_the_server_and_of_the_sdk() -> None:
    layout = CONTRIBUTING[CONTRIBUTING.index("## Layout") :]
    named = set(re.findall(r"([\w]+)/", layout))
    for root in ("client/manyview", "server/manyview_server"):
        folders = {path.parent.name for path in ROOT.glob(f"{root}/*/*.py")} | {
            path.parent.name for path in ROOT.glob(f"{root}/*/*/*.py") if path.parent.parent.name != "methods"
        }
        assert folders - named == set()


def test_the_route_names_files_that_exist() -> None:
    route = CONTRIBUTING[CONTRIBUTING.index("## The route") : CONTRIBUTING.index("## Layout")]
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


def test_the_ten_lines_call_what_there_is() -> None:
    """Each method that they call exists and takes these arguments, and each attribute that they read exists."""
    source = README[README.index("```python\n") + 10 :]
    tree = ast.parse(source[: source.index("```")])
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    checked = 0
    for call in calls:
        assert isinstance(call.func, ast.Attribute)
        owner = RESULTS.get(getattr(call.func.value, "id", ""))
        if owner is not None:
            method = getattr(owner, call.func.attr)
            given = {keyword.arg: None for keyword in call.keywords if keyword.arg}
            inspect.signature(method).bind(None, *call.args, **given)
            checked += 1
    assert checked >= 6


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_link_and_make_target_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [link for link in links if not (ROOT / link).exists()] == []
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", text, flags=re.MULTILINE)) != set()
    named = {first or second for first, second in re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", text, re.MULTILINE)}
    assert named <= targets
