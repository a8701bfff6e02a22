"""The commands that choose images: what they print, write and refuse."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import manyview
from manyview._cli.main import app
from manyview._results import sheets
from manyview._results.contact_sheet import GAP_PX, LINE_PX
from manyview.testing import FakeServer
from manyview.v1 import embed_service_pb2 as pb

MODEL = "backbones/resnet18"
Run = Callable[..., Any]


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def width(path: Path) -> int:
    with Image.open(path) as image:
        return image.width


@pytest.fixture
def run(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MANYVIEW_TARGET", server.target)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def folder(client: manyview.Client, tmp_path: Path) -> Path:
    """Five images "red/00.png" to "blue/80.png", in the data set "pets" too."""
    for number in range(5):
        path = tmp_path / "in" / ("red" if number % 2 == 0 else "blue") / f"{20 * number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(20 * number))
    client.upload(tmp_path / "in", "pets", progress=False)
    return tmp_path / "in"


def test_a_data_set_is_embedded_where_it_is(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "v.npy"
    result = run("embed", "--dataset", "pets", "-m", MODEL, "-o", out, "--pca", "2")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{out}: 5 rows of 2 features from {MODEL}")
    assert "50.0% of the variance kept" in result.stdout
    assert np.load(out).shape == (5, 2)
    beside = json.loads(out.with_suffix(".json").read_text())
    assert (beside["variance_kept"], beside["keys"][0]) == (0.5, "blue/20.png")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("x.png", "--dataset", "pets"), "SOURCES has no effect with --dataset"),
        (("--dataset", "pets", "--batch-size", 3), "--batch-size has no effect with --dataset"),
        (("x.png", "--pca", 3), "--pca needs --dataset"),
        (("x.png", "--whiten"), "--whiten needs --dataset"),
        (("x.png", "--version", 3), "--version needs --dataset"),
        ((), "name files to embed, or set --dataset"),
        (("--dataset", "pets", "--pca", "many"), "--pca many: expected a number of dimensions, or a share"),
        (("--dataset", "pets", "--whiten"), "whiten needs pca"),
    ],
)
def test_what_does_not_go_together_is_refused(
    run: Run, server: FakeServer, tmp_path: Path, arguments: tuple[Any, ...], text: str
) -> None:
    result = run("embed", *arguments, "-m", MODEL, "-o", tmp_path / "v.npy")
    assert (result.exit_code, text in result.stderr) == (1, True), result.output
    assert server.requests("EmbedDataset") == []


def test_a_selection_is_a_table_json_a_list_of_keys_and_a_picture(run: Run, tmp_path: Path) -> None:
    keys, picture = tmp_path / "keys.txt", tmp_path / "sheet.png"
    result = run("select", "pets", "-n", 3, "-m", MODEL, "--seed", 1, "-o", keys, "-o", picture)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["RANK", "SCORE", "IMAGE", "LABEL", "KEY"]
    assert [row[1] for row in rows[1:]] == ["-", "1.0000", "2.0000"]
    assert keys.read_text().split() == [row[-1] for row in rows[1:]]
    assert width(picture) > 200
    chosen = run("select", "pets", "-n", 2, "-m", MODEL, "--chosen", keys, "--json")
    found = json.loads(chosen.stdout)
    assert (found["strategy"], found["checkpoint"], found["version"]) == ("coreset", MODEL, 5)
    assert not {sample["key"] for sample in found["samples"]} & set(keys.read_text().split())


def test_every_option_of_a_strategy_reaches_the_server(run: Run, server: FakeServer, folder: Path) -> None:
    lines = [
        ("-n", 1, "--strategy", "random", "--seed", 4),
        ("--strategy", "minimum_distance", "--distance", 0.5, "--metric", "euclidean", "-m", MODEL),
        ("-n", 1, "--strategy", "typicality", "--num-neighbors", 3, "--output", "projection", "-m", MODEL),
        ("-n", 1, "--strategy", "similarity", "--like", folder / "red", "-m", MODEL, "--version", 4),
        ("-n", 1, "--strategy", "similarity", "--like-key", "red/00.png", "-m", MODEL),
        ("--balance", "red=2", "--balance", "blue=1", "-m", MODEL),
        ("-n", 2, "--balance", "equal", "-m", MODEL),
    ]
    for line in lines:
        result = run("select", "pets", *line)
        assert result.exit_code == 0, result.output
    random, minimum, typical, like, like_key, counts, equal = server.requests("SelectSamples")
    assert random.random.seed == 4
    assert (minimum.minimum_distance.distance, minimum.metric) == (0.5, pb.METRIC_EUCLIDEAN)
    assert (typical.typicality.num_neighbors, typical.output) == (3, pb.EmbedOptions.OUTPUT_PROJECTION)
    assert (len(like.similarity.images), like.version) == (3, 4)
    assert like_key.similarity.stored[0].key == "red/00.png"
    assert dict(counts.balance.counts) == {"red": 2, "blue": 1}
    assert equal.balance.share == pb.ClassBalance.SHARE_EQUAL


def test_examples_that_cannot_be_used_are_named_and_the_others_count(
    run: Run, server: FakeServer, folder: Path, tmp_path: Path
) -> None:
    (folder / "red/notes.txt").write_text("no image")
    torn = manyview.Violation("similarity.images[0]", "has no embedding: DECODE_FAILED: it is torn", "DECODE_FAILED")
    server.fail("SelectSamples", "INVALID_ARGUMENT", violations=[torn])
    like = ("select", "pets", "-n", 1, "--strategy", "similarity", "--like", folder / "red", "-m", MODEL)
    result = run(*like)
    assert result.exit_code == 1, "an example is missing"
    assert "--like 00.png: DECODE_FAILED it is torn" in result.stderr
    assert "passed over 1 NOT_AN_IMAGE: " in result.stderr
    assert len(result.stdout.splitlines()) == 2, "the heading and an image"
    assert len(server.requests("SelectSamples")[-1].similarity.images) == 2
    server.fail("SelectSamples", "INVALID_ARGUMENT", violations=[torn])
    found = json.loads(run(*like, "--json").stdout)
    assert [(error["like"], error["reason"]) for error in found["errors"]] == [("00.png", "DECODE_FAILED")]
    assert [(files["reason"], files["names"]) for files in found["skipped"]] == [
        ("NOT_AN_IMAGE", [str(folder / "red/notes.txt")])
    ]


@pytest.mark.parametrize("words", [["fair"], ["equal", "red=1"], ["red="], ["red=-1"]])
def test_a_balance_that_is_none_is_refused(run: Run, words: list[str]) -> None:
    options = [part for word in words for part in ("--balance", word)]
    result = run("select", "pets", "-n", 1, "-m", MODEL, *options)
    assert (result.exit_code, "expected equal, proportional or LABEL=NUMBER" in result.stderr) == (1, True)


def test_neighbors_of_files_and_of_stored_images(run: Run, folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "near.png"
    result = run("neighbors", "pets", folder / "red/40.png", "-m", MODEL, "-k", 2, "-o", picture)
    assert result.exit_code == 0, result.output
    assert "0.0000" in result.stdout.splitlines()[1]
    assert width(picture) == 3 * (sheets.SIDE + GAP_PX) + GAP_PX
    stored = run("neighbors", "pets", "--key", "red/40.png", "--key", "red/00.png", "-m", MODEL, "-k", 2, "--json")
    first, second = json.loads(stored.stdout)
    assert (first["query"], second["query"], len(first["neighbors"])) == ("red/40.png", "red/00.png", 2)
    assert "red/40.png" not in {near["key"] for near in first["neighbors"]}
    assert run("neighbors", "pets", "--key", "red/40.png", "-m", MODEL, "-o", picture).exit_code == 0


def test_a_query_that_cannot_be_embedded_is_told_and_the_status_says_so(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "red/00.png").write_bytes(b"")
    result = run("neighbors", "pets", folder / "red", "-m", MODEL, "-o", tmp_path / "near.png")
    assert result.exit_code == 1
    assert "IMAGE_EMPTY" in result.stderr
    assert "40.png" in result.stdout


def test_duplicates_are_groups_and_how_many_could_go(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "groups.png"
    result = run("duplicates", "pets", "-d", 9, "-m", MODEL, "-o", picture)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "group 1, 5 images"
    assert result.stdout.splitlines()[-1] == "1 group; 4 images are duplicates of others"
    assert width(picture) == 5 * (sheets.SIDE + GAP_PX) + GAP_PX
    none = run("duplicates", "pets", "-d", 0, "-m", MODEL, "-o", picture, "--json")
    assert json.loads(none.stdout) == []


@pytest.mark.parametrize(
    "command",
    [
        ("select", "pets", "-n", 1, "-m", MODEL),
        ("neighbors", "pets", "--key", "a", "-m", MODEL),
        ("duplicates", "pets", "-d", 1, "-m", MODEL),
        ("preview", "a.png"),
    ],
)
def test_another_kind_of_file_is_refused_before_anything_is_asked(
    run: Run, server: FakeServer, command: tuple[Any, ...]
) -> None:
    result = run(*command, "-o", "sheet.gif")
    assert (result.exit_code, "--out sheet.gif: expected a .png" in result.stderr) == (1, True)
    asking = ("SelectSamples", "FindNeighbors", "FindDuplicates", "PreviewViews")
    assert not any(call.rpc in asking for call in server.calls)


def test_neighbors_need_a_model(run: Run) -> None:
    for command in (("neighbors", "pets", "--key", "a"), ("duplicates", "pets", "-d", 1)):
        result = run(*command)
        assert result.exit_code == 2
        assert "--model" in result.output


def test_without_pillow_a_picture_is_refused_with_what_to_install(server: FakeServer, tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules["PIL"] = None
from typer.testing import CliRunner
from manyview._cli.main import app
from manyview._results.contact_sheet import GAP_PX, LINE_PX
arguments = ["select", "pets", "-n", "1", "-m", "{MODEL}", "--target", "{server.target}"]
assert CliRunner().invoke(app, arguments).exit_code == 0
result = CliRunner().invoke(app, [*arguments, "-o", "{tmp_path}/sheet.png"])
assert result.exit_code == 1, result.output
assert "a contact sheet needs Pillow: pip install pillow" in result.stderr, result.stderr
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)
    assert len(server.requests("SelectSamples")) == 1, "the second was refused before the work"


def test_images_whose_keys_are_not_unique_are_named_by_their_ids(run: Run, server: FakeServer, tmp_path: Path) -> None:
    table = tmp_path / "chosen.tsv"
    assert run("select", "pets", "-n", 2, "-m", MODEL, "-o", table).exit_code == 0
    lines = [line.split("\t") for line in table.read_text().splitlines()]
    assert lines[0] == ["IMAGE", "LABEL", "SCORE", "KEY"]
    assert [line[1:] for line in lines[1:]] == [["blue", "", "blue/20.png"], ["blue", "1", "blue/60.png"]]
    ids = [line[0] for line in lines[1:]]
    assert run("select", "pets", "-n", 1, "-m", MODEL, "--chosen", table).exit_code == 0
    assert [ref.image_id for ref in server.requests("SelectSamples")[1].chosen] == ids
    by_id = run("neighbors", "pets", "--key", f"id:{ids[0]}", "-m", MODEL, "-o", tmp_path / "near.png", "--json")
    assert json.loads(by_id.stdout)[0]["query"] == f"id:{ids[0]}"
    assert (
        run("select", "pets", "-n", 1, "--strategy", "similarity", "--like-key", f"id:{ids[1]}", "-m", MODEL).exit_code
        == 0
    )
    assert server.requests("SelectSamples")[2].similarity.stored[0].image_id == ids[1]
    run("preview", f"id:{ids[0]}", "--dataset", "pets")
    assert server.requests("PreviewViews")[0].images[0].stored.image_id == ids[0]
    other = tmp_path / "other.tsv"
    other.write_text("KEY\na\n")
    result = run("select", "pets", "-n", 1, "-m", MODEL, "--chosen", other)
    assert (result.exit_code, "the table must have the column IMAGE" in result.stderr) == (1, True)


def test_how_many_neighbors_is_left_to_the_server_and_a_sheet_holds_only_so_many(
    run: Run, server: FakeServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheets, "MAX_TILES", 12)
    result = run("neighbors", "pets", folder, "-m", MODEL, "-o", tmp_path / "near.png")
    assert result.exit_code == 0, result.output
    assert server.requests("FindNeighbors")[0].num_neighbors == 0
    assert "near.png shows the first 2 of 5 queries" in result.stderr
    with Image.open(tmp_path / "near.png") as picture:
        assert picture.height == 2 * (sheets.SIDE + 2 * LINE_PX + GAP_PX) + GAP_PX
