"""docs/operations.md names every reason, variable, exit status and command as the code has them."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from manyview._cli.main import app
from manyview_server.config import ServeSettings
from manyview_server.store.database.database import EXIT_SYNC_FAILED

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/operations.md").read_text()


def test_it_tells_of_every_reason_of_the_contract() -> None:
    contract = (ROOT / "proto/manyview/v1/train_job_service.proto").read_text()
    comment = contract[contract.index("UPPER_SNAKE case:") : contract.index("string reason = 1;")]
    reasons = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b|\bCOLLAPSED\b|\bSTALLED\b|\bINTERNAL\b", comment)) - {
        "UPPER_SNAKE"
    }
    assert len(reasons) == 16
    told = {name for row in re.findall(r"^\| ([A-Z_, ]+) \|", PAGE, re.MULTILINE) for name in row.split(", ")}
    assert told == reasons


def test_its_variables_are_those_of_the_compose_file_and_of_the_server() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    rows = set(re.findall(r"^\| `(MANYVIEW_\w+)`", PAGE, re.MULTILINE))
    assert rows == set(re.findall(r"\$\{(MANYVIEW_\w+)", compose))
    settings = {name.lower() for name in re.findall(r"MANYVIEW_SERVER_([A-Z]\w+)", PAGE)} - {"config"}
    assert settings <= ServeSettings.model_fields.keys()
    assert f"\n| {EXIT_SYNC_FAILED} | " in PAGE


def test_its_commands_and_files_exist() -> None:
    commands = typer.main.get_command(app)
    for name in re.findall(r"`manyview (\w+)", PAGE):
        assert name in commands.commands, name  # type: ignore[attr-defined]
    for name in re.findall(r"-f ([\w.-]+\.yml)", PAGE):
        assert (ROOT / name).exists()
    assert "drain_s" in ServeSettings.model_fields
