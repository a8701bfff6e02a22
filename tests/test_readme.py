"""README's layout and route name what is there, all of it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import typer

from manyview._cli.main import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_layout_names_every_file_of_the_server_and_of_the_sdk() -> None:
    layout = README[README.index("## Layout") :]
    named = set(re.findall(r"[\w]+\.py", layout))
    families = ("_cli", "v1")  # told of as a whole
    sources = [*ROOT.glob("client/manyview/**/*.py"), *ROOT.glob("server/manyview_server/**/*.py")]
    files = {path.name for path in sources if path.name != "__init__.py" and path.parent.name not in families}
    assert files - named == set()
    assert named - {path.name for path in [*sources, *ROOT.glob("benchmarks/*.py")]} == set()


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
