"""Files and folders that are missing are noticed before the server is asked for anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from manyview._cli.main import app

MODEL = ["-m", "backbones/resnet18"]
NOBODY = ["--target", "localhost:1"]


@pytest.mark.parametrize(
    "command",
    [
        ["upload", "MISSING", "-d", "pets"],
        ["embed", "MISSING", *MODEL, "-o", "FOLDER/x.npy"],
        ["neighbors", "pets", "MISSING", *MODEL],
        ["select", "pets", "-n", "1", "--strategy", "similarity", "--like", "MISSING", *MODEL],
        ["preview", "MISSING"],
    ],
    ids=lambda command: command[0],
)
def test_a_missing_folder_is_named_although_there_is_no_server(tmp_path: Path, command: list[str]) -> None:
    missing = str(tmp_path / "missing")
    words = [word.replace("MISSING", missing).replace("FOLDER", str(tmp_path)) for word in command]
    result = CliRunner().invoke(app, [*words, *NOBODY])
    first, *hints = result.stderr.splitlines()
    assert (result.exit_code, first) == (1, f"error: {missing} does not exist")
    keys = {"neighbors": "--key KEY", "select": "--like-key KEY", "preview": "--dataset"}
    assert [keys.get(command[0], "nothing") in hint for hint in hints] == [True] * (command[0] in keys)


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["embed", "-d", "pets", *MODEL, "-o", "OUT.npy"], "--out"),
        (["select", "pets", "-n", "1", *MODEL, "-o", "OUT.txt"], "--out"),
        (["neighbors", "pets", "--key", "a", *MODEL, "-o", "OUT.png"], "--out"),
        (["duplicates", "pets", "-d", "0.1", *MODEL, "-o", "OUT.png"], "--out"),
        (["preview", "a", "-d", "pets", "-o", "OUT.png"], "--out"),
        (["export", "backbones/resnet18", "OUT.safetensors"], "PATH"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_missing_folder_for_the_result_is_noticed_before_the_work(
    tmp_path: Path, command: list[str], option: str
) -> None:
    out = tmp_path / "missing" / "file"
    result = CliRunner().invoke(app, [*(word.replace("OUT", str(out)) for word in command), *NOBODY])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {option} {out}")
    assert result.stderr.endswith(f"the directory {out.parent} does not exist\n")


def test_patterns_are_left_to_the_upload() -> None:
    result = CliRunner().invoke(app, ["upload", "shard-{000..002}.tar", "-d", "pets", *NOBODY])
    assert "does not exist" not in result.stderr
