"""The commands that create, list and delete, and how values are printed: with units, and times as in ISO 8601."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

import manyview
from manyview._cli.connection import json_text, steps
from manyview._cli.main import app
from manyview.testing import FakeServer
from manyview.v1 import metrics_service_pb2

Run = Callable[..., Any]


@pytest.fixture
def run(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MANYVIEW_TARGET", server.target)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: object, answer: str | None = None) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=answer)

    return invoke


@pytest.fixture
def pets(client: manyview.Client, tmp_path: Path) -> Path:
    """Two pictures in the data set "pets"."""
    for name, color in (("cat/a.png", "red"), ("dog/b.png", "blue")):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), color).save(tmp_path / "in" / name)
    client.upload(tmp_path / "in", "pets", progress=False)
    return tmp_path / "in"


def test_the_version_needs_no_server() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"manyview {manyview.__version__}\n")


def test_a_shell_completes_the_names_of_commands() -> None:
    environment = {**os.environ, "_MANYVIEW_COMPLETE": "complete_bash", "COMP_WORDS": "manyview dup", "COMP_CWORD": "1"}
    program = "import sys; sys.argv[0] = 'manyview'; from manyview._cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["duplicates"]


def test_a_data_set_is_created_and_deleted_after_a_question(run: Run, client: manyview.Client, pets: Path) -> None:
    assert run("create", "robots").stdout.startswith("datasets/robots created; add images with: manyview upload")
    assert run("create", "robots").exit_code == 1
    assert json.loads(run("create", "more", "--json").stdout)["name"] == "datasets/more"
    client.train("pets", job_id="first")
    refused = run("delete", "pets", answer="n\n")
    assert refused.exit_code == 1
    question = (
        "Delete datasets/pets with its 2 images? One job names it and keeps its checkpoints, but cannot be cloned"
    )
    assert question in refused.stderr
    assert client.dataset("pets").num_images == 2
    assert run("delete", "datasets/pets", answer="y\n").stdout.endswith("datasets/pets deleted\n")
    assert json.loads(run("delete", "robots", "--yes", "--json").stdout) == {"deleted": "datasets/robots"}
    assert [dataset.id for dataset in client.datasets()] == ["more"]


def test_a_job_is_deleted_after_a_question(run: Run, client: manyview.Client, server: FakeServer, pets: Path) -> None:
    client.train("pets", job_id="first")
    server.finish_job("trainJobs/first")
    assert "Delete trainJobs/first (SUCCEEDED) with its events and" in run("delete", "first", answer="n\n").stderr
    assert run("delete", "first", "--yes").stdout == "trainJobs/first deleted\n"
    assert client.jobs() == []


def test_a_name_to_delete_must_be_known_and_unambiguous(run: Run, client: manyview.Client, pets: Path) -> None:
    client.train("pets", job_id="pets")
    text = "error: pets is a data set and a train job; write datasets/pets or trainJobs/pets\n"
    assert run("delete", "pets", "--yes").stderr == text
    text = "error: there is no data set and no train job 'pest'; did you mean 'pets'?\n"
    assert run("delete", "pest", "--yes").stderr == text
    assert client.dataset("pets").num_images == 2


def test_the_checkpoints_of_a_job_have_steps_and_sizes(
    run: Run, client: manyview.Client, server: FakeServer, pets: Path
) -> None:
    client.train("pets", job_id="first")
    server.finish_job("trainJobs/first")
    header, row = run("checkpoints", "first").stdout.splitlines()
    assert header.split() == ["CHECKPOINT", "STEP", "EPOCH", "SIZE", "TIME", "(UTC)"]
    assert row.startswith("trainJobs/first/checkpoints/")
    assert " MB" in row
    assert json.loads(run("checkpoints", "first", "--json").stdout)[0]["train_job"] == "trainJobs/first"


def test_jobs_are_listed_by_state(run: Run, client: manyview.Client, server: FakeServer, pets: Path) -> None:
    for name in ("first", "second"):
        client.train("pets", job_id=name)
    server.finish_job("trainJobs/first")
    assert [job["name"] for job in json.loads(run("jobs", "--state", "queued", "--json").stdout)] == [
        "trainJobs/second"
    ]
    assert "0/0" not in run("jobs").stdout
    assert "did you mean 'RUNNING'?" in run("jobs", "--state", "RUNING").stderr


def test_images_are_listed_into_files(run: Run, pets: Path, tmp_path: Path) -> None:
    table, keys, sheet = (tmp_path / f"images.{suffix}" for suffix in ("tsv", "txt", "png"))
    for path in (table, keys, sheet):
        assert run("images", "pets", "--out", path).stdout == f"{path}: 2 images\n"
    assert table.read_text().splitlines()[0].split("\t") == ["IMAGE", "LABEL", "SCORE", "KEY"]
    assert keys.read_text().splitlines() == ["cat/a.png", "dog/b.png"]
    with Image.open(sheet) as picture:
        assert {(255, 0, 0), (0, 0, 255)} <= {color for _, color in picture.getcolors(100_000)}  # type: ignore[union-attr]
    assert "expected a .png, .jpg, .txt or .tsv file" in run("images", "pets", "--out", "x.csv").stderr


def test_an_export_takes_its_file_in_either_way(run: Run, client: manyview.Client, pets: Path, tmp_path: Path) -> None:
    for place in ([tmp_path / "a.safetensors"], ["-o", tmp_path / "b.safetensors"]):
        result = run("export", "backbones/resnet18", *place)
        assert re.fullmatch(r".*[ab]\.safetensors: \d+\.\d MB, the resnet18 of backbones/resnet18\n", result.stdout)
        assert "  network = backbones.build('resnet18')\n  backbones.load_weights(network, " in result.stderr
    assert run("export", "backbones/resnet18").exit_code == 2
    assert "name one file to write" in run("export", "backbones/resnet18", "a", "-o", "b").stderr


def test_a_selection_by_a_model_asks_for_one(run: Run, pets: Path) -> None:
    result = run("select", "pets", "--count", 1)
    assert result.exit_code == 2
    assert "the strategy coreset needs a model: name a job, a checkpoint or backbones/NAME" in result.stderr
    assert run("select", "pets", "--count", 1, "--strategy", "random").exit_code == 0
    text = "error: strategy must be one of random, coreset, minimum_distance, typicality, similarity, not 'corset'; "
    assert run("select", "pets", "--count", 1, "--strategy", "corset").stderr == f"{text}did you mean 'coreset'?\n"


def test_an_unknown_method_is_suggested(run: Run) -> None:
    assert "did you mean 'simclr'?" in run("methods", "simclar").stderr


def test_values_have_units_and_times_are_iso(run: Run, client: manyview.Client, server: FakeServer, pets: Path) -> None:
    client.train("pets", job_id="first")
    server.add_scalars("trainJobs/first", 1, memory_bytes=929_624_000, images_per_second=6.94444, loss=3.45409393)
    saved = metrics_service_pb2.CheckpointSaved(name="trainJobs/first/checkpoints/1", num_bytes=2_760_726)
    server.add_event("trainJobs/first", kind="KIND_CHECKPOINT", checkpoint=saved)
    server.finish_job("trainJobs/first")
    lines = run("watch", "first").stdout.splitlines()
    assert lines[0].endswith("loss 3.454  memory 930 MB  speed 6.9 img/s")
    assert lines[1].endswith("checkpoint: trainJobs/first/checkpoints/1, 2.8 MB")
    moment = datetime(2026, 11, 28, 10, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=1)))
    assert json_text({"time": moment}) == '{"time": "2026-11-28T09:00:00.250000Z"}'


@pytest.mark.parametrize(
    ("step", "num_steps", "text"), [(0, 0, "-"), (516, 0, "516"), (0, 688, "0/688"), (516, 688, "516/688")]
)
def test_a_job_without_a_known_end_shows_none(step: int, num_steps: int, text: str) -> None:
    progress = manyview.Progress(step=step, num_steps=num_steps, epoch=0, num_epochs=0, eta_s=0)
    assert steps(progress) == text
