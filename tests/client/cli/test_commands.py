"""The command line through its runner: what it prints, what it writes, and how it fails."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import manyview
from manyview._cli.jobs import assign
from manyview._cli.main import app
from manyview._cli.models import parameters
from manyview.testing import FakeServer

COMMANDS = [
    "create", "upload", "images", "datasets", "train", "jobs", "watch", "logs", "pause", "resume", "cancel", "embed",
    "select", "neighbors", "duplicates", "export", "checkpoints", "preview", "models", "methods", "delete", "info",
    "health",
]  # fmt: skip
Run = Callable[..., Any]


@pytest.fixture
def run(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MANYVIEW_TARGET", server.target)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat/a.jpg", "dog/b.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        (tmp_path / "in" / name).write_bytes(name.encode())
    return tmp_path / "in"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_takes_the_common_options(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert all(option in result.stdout for option in ("--target", "--token", "--json"))


def test_the_commands_are_these(run: Run) -> None:
    assert {command.callback.__name__ for command in app.registered_commands if command.callback} == set(COMMANDS)


def test_the_whole_way_from_images_to_weights(run: Run, server: FakeServer, folder: Path, tmp_path: Path) -> None:
    uploaded = run("upload", folder, "--dataset", "pets")
    assert uploaded.stdout == "datasets/pets: 2 found: 2 stored; the data set has 2 images\n"
    assert "pets" in run("datasets").stdout
    assert "cat/a.jpg" in run("images", "pets").stdout
    trained = run("train", "pets", "--job-id", "mine", "--set", "views.blur.probability=0", "--json")
    assert json.loads(trained.stdout)["config"] == {"method": "simclr", "views": {"blur": {"probability": 0}}}
    server.add_scalars("trainJobs/mine", 1, loss=2.5)
    server.finish_job("trainJobs/mine")
    assert run("watch", "mine").stdout.splitlines() == [
        "#1 step 1 epoch 0 scalars: loss 2.5",
        "#2 step 0 epoch 0 state: SUCCEEDED",
    ]
    assert "mine  SUCCEEDED" in run("jobs").stdout
    assert run("embed", folder, "-m", "mine", "-o", tmp_path / "e.npy").exit_code == 0
    assert np.load(tmp_path / "e.npy").shape == (2, 4)
    beside = json.loads((tmp_path / "e.json").read_text())
    assert (beside["keys"], beside["labels"]) == (["cat/a.jpg", "dog/b.jpg"], ["cat", "dog"])
    tokens = run("embed", folder, "-m", "mine", "-o", tmp_path / "t.npy", "--output", "patch_tokens")
    assert "rows of 2 tokens of 2 features from" in tokens.output
    refused = run("embed", folder, "-m", "mine", "-o", tmp_path / "t.csv", "--output", "patch_tokens")
    assert "patch tokens need a .npy file" in refused.output
    assert run("embed", folder, "-m", "mine", "-o", tmp_path / "e.csv").exit_code == 0
    assert (tmp_path / "e.csv").read_text().splitlines()[0] == "key,label,f0,f1,f2,f3"
    assert run("export", "mine", tmp_path / "w.safetensors").exit_code == 0
    assert "trainJobs/mine/checkpoints/2" in run("models").stdout
    assert "epochs" in run("methods", "simclr").stdout


@pytest.mark.parametrize("command", [["datasets"], ["jobs"], ["models"], ["methods"], ["info"], ["health"]])
def test_json_is_json(run: Run, command: list[str]) -> None:
    result = run(*command, "--json")
    assert result.exit_code == 0
    json.loads(result.stdout)


def test_an_error_is_one_line_with_what_may_help(run: Run, folder: Path) -> None:
    run("upload", folder, "--dataset", "pets")
    result = run("train", "pest")
    assert result.exit_code == 1
    assert result.stderr == "error: no data set datasets/pest [DATASET_NOT_FOUND]\n  known: pets\n"
    assert run("train", "pets", "--config", "no.json").stderr == "error: --config no.json: there is no such file\n"
    missing = run("upload", "/no/such/folder", "--dataset", "pets")
    assert (missing.exit_code, missing.stderr) == (1, "error: /no/such/folder does not exist\n")
    wrong = run("train", "pets", "--set", "epochs")
    assert (wrong.exit_code, wrong.stderr[:33]) == (1, "error: --set epochs: expected NAM")


def test_a_server_that_is_not_there_is_said_so(run: Run) -> None:
    result = run("health", "--target", "localhost:1")
    assert result.exit_code == 1
    assert "no manyview server answered at localhost:1" in result.stderr
    assert "--target or $MANYVIEW_TARGET" in result.stderr


def test_wrong_usage_has_a_status_of_its_own(run: Run) -> None:
    assert run("train").exit_code == 2
    assert run("trian").exit_code == 2
    assert "Did you mean 'train'" in run("trian").stderr


def test_a_fault_of_ours_shows_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manyview.Client, "jobs", lambda *_: json.loads("{"))
    assert isinstance(run("jobs").exception, ValueError)


def test_a_job_that_failed_fails_the_watch(run: Run, server: FakeServer, folder: Path) -> None:
    run("upload", folder, "--dataset", "pets")
    run("train", "pets", "--job-id", "mine")
    failure = {"reason": "CRASH_LOOP", "message": "died 3 times", "hint": "see the log"}
    server.finish_job("trainJobs/mine", "FAILED", failure=failure)
    result = run("watch", "mine", "--json")
    assert result.exit_code == 1
    shown = json.loads(result.stdout)
    assert list(shown) == ["sequence", "kind", "time", "attempt", "step", "epoch", "values"]
    assert shown["values"]["to"] == "FAILED"
    assert "died 3 times [CRASH_LOOP]\n  see the log" in result.stderr


def test_labels_are_folders_or_none_or_come_from_a_file(
    run: Run, server: FakeServer, folder: Path, tmp_path: Path
) -> None:
    table, wrong = tmp_path / "labels.csv", tmp_path / "wrong.jsonl"
    table.write_text("key,label\ncat/a.jpg,tabby\n")
    wrong.write_text('{"key": "cat/a.jpg", "label": [0, 1]}\n')
    for labels, expected in (("path", ["cat", "dog"]), ("none", ["", ""]), (table, ["tabby", "dog"])):
        name = Path(labels).stem
        assert run("upload", folder, "--dataset", name, "--labels", labels).exit_code == 0
        assert [image.label for image in server.state.images[f"datasets/{name}"]] == expected
    result = run("upload", folder, "--dataset", "pets", "--labels", wrong)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {wrong}, line 1, field label: an image has one label, not a list of 2")
    assert "error: labels: there is no file last" in run("upload", folder, "-d", "pets", "--labels", "last").stderr


def test_the_whole_configuration_is_shown_and_nothing_created(run: Run, folder: Path, tmp_path: Path) -> None:
    run("upload", folder, "--dataset", "pets")
    (tmp_path / "job.toml").write_text("epochs = 7\n[views.blur]\nprobability = 1.0\n")
    result = run(
        "train", "pets", "--config", tmp_path / "job.toml", "--set", "views.blur.probability=0", "--print-config"
    )
    assert json.loads(result.stdout) == {"epochs": 7, "method": "simclr", "views": {"blur": {"probability": 0}}}
    assert json.loads(run("jobs", "--json").stdout) == []
    (tmp_path / "job.yaml").write_text("epochs: 7")
    assert "must be a .json or .toml file" in run("train", "pets", "--config", tmp_path / "job.yaml").stderr


def test_train_says_on_stderr_what_was_chosen_and_how_long_it_takes(run: Run, folder: Path) -> None:
    run("upload", folder, "--dataset", "pets")
    for words in (("--print-config",), ()):
        result = run("train", "pets", "--time", "1.5m", *words)
        expected = ["chosen: epochs=1 for 90 s on this CPU", "time: less than a minute on this CPU"]
        assert result.stderr.splitlines() == expected
    assert "--time must be seconds, or a text" in run("train", "pets", "--time", "soon").stderr


def test_settings_reach_every_depth() -> None:
    config: dict[str, object] = {}
    for setting in ("a.b=1", "a.c=text", "d=[1, 2]", "e=null"):
        assign(config, setting)
    assert config == {"a": {"b": 1, "c": "text"}, "d": [1, 2], "e": None}
    with pytest.raises(ValueError, match="d already has a value"):
        assign(config, "d.x=1")


def test_parameters_are_found_behind_references() -> None:
    schema = {
        "properties": {
            "views": {"$ref": "#/$defs/Views"},
            "seed": {"default": 0, "minimum": 0, "description": "Seed."},
        },
        "$defs": {"Views": {"properties": {"kind": {"enum": ["a", "b"], "default": "a"}}}},
    }
    assert parameters(schema, schema) == [("views.kind", '"a"', "a|b", ""), ("seed", "0", "0..", "Seed.")]


def test_parameters_say_which_recipe_holds_at_which_size() -> None:
    blur = {"properties": {"probability": {"default": 0.5, "x-small-default": 0.0}}}
    chosen = {"sibling": "image_size", "below": 96, "small": "simclr_small", "large": "simclr"}
    schema = {"properties": {"views": {"properties": {"blur": blur}, "x-default-preset": chosen}}}
    meaning = "The default is the preset simclr from image_size 96 on, and simclr_small below: the values marked small."
    assert parameters(schema, schema) == [
        ("views", "simclr", "", meaning),
        ("views.blur.probability", "0.5, small 0.0", "", ""),
    ]
