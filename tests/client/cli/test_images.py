"""The report of an upload on the command line: it adds up, names what is missing, and sets the exit status."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from manyview._cli.main import app
from manyview.testing import FakeServer

JPEG = b"\xff\xd8\xff\xe0 "
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
Run = Callable[..., Any]


@pytest.fixture
def run(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MANYVIEW_TARGET", server.target)
    monkeypatch.setenv("COLUMNS", "200")
    server.state.rejects.update({JPEG + b"bad1": "ANIMATED", JPEG + b"bad2": "ANIMATED"})
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def write(folder: Path, **contents: bytes) -> Path:
    """Write files. "_" in a name stands for a dot."""
    folder.mkdir(exist_ok=True)
    for name, data in contents.items():
        (folder / name.replace("_", ".")).write_bytes(data)
    return folder


def test_the_report_of_a_messy_folder_adds_up_and_names_what_is_missing(run: Run, tmp_path: Path) -> None:
    good = {"a_jpg": JPEG + b"1", "b": JPEG + b"2", "copy_jpg": JPEG + b"1"}
    refused = {"c_jpg": JPEG + b"bad1", "d_jpg": JPEG + b"bad2"}
    folder = write(tmp_path / "in", **good, **refused, notes_txt=b"hello", phone_heic=HEIC, _hidden=b"")
    (folder / "broken.jpg").symlink_to("nowhere")
    first = run("upload", folder, "-d", "pets")
    assert first.exit_code == 3
    assert first.stdout == (
        "datasets/pets: 9 found: 2 stored, 1 duplicate, 2 refused, 4 passed over; the data set has 2 images\n"
    )
    lines = first.stderr.splitlines()
    assert lines[:3] == ["  refused 2 ANIMATED", "    c.jpg: scripted", "    d.jpg: scripted"]
    assert [line for line in lines if "passed over" in line] == [
        f"  passed over 1 BROKEN_LINK: {folder}/broken.jpg",
        f"  passed over 1 FORMAT_NOT_READ: {folder}/phone.heic",
        f"  passed over 1 HIDDEN: {folder}/.hidden",
        f"  passed over 1 NOT_AN_IMAGE: {folder}/notes.txt",
    ]
    assert "pip install pillow-heif" in first.stderr
    second = run("upload", folder, "-d", "pets")
    assert second.exit_code == 3
    assert ": 9 found: 0 stored, 5 sent before, 4 passed over; the data set has 2 images" in second.stdout
    assert "an earlier run refused 2 of the images that it sent" in second.stderr


def test_json_has_the_sums_and_every_name(run: Run, tmp_path: Path) -> None:
    folder = write(tmp_path / "in", a_jpg=JPEG, c_jpg=JPEG + b"bad1", notes_txt=b"hello")
    result = run("upload", folder, "-d", "pets", "--json")
    report = json.loads(result.stdout)["upload"]
    assert (report["num_found"], report["num_skipped"], report["num_stored"], report["num_rejected"]) == (3, 1, 1, 1)
    assert report["skipped"][0] == {
        "reason": "NOT_AN_IMAGE", "num_files": 1, "names": [f"{folder}/notes.txt"], "hint": "",
    }  # fmt: skip
    assert report["rejected"][0]["error"] == {"reason": "ANIMATED", "message": "scripted"}


def test_an_upload_whose_images_are_all_refused_says_that_no_data_set_was_created(run: Run, tmp_path: Path) -> None:
    folder = write(tmp_path / "in", c_jpg=JPEG + b"bad1")
    result = run("upload", folder, "-d", "pets")
    assert result.exit_code == 3
    assert result.stdout == "datasets/pets: 1 found: 0 stored, 1 refused; the data set was not created\n"
    as_json = run("upload", folder, "-d", "pets", "--json")
    assert as_json.exit_code == 3
    assert json.loads(as_json.stdout)["upload"]["num_rejected"] == 1
    assert json.loads(run("datasets", "--json").stdout) == []


@pytest.mark.parametrize(
    ("name", "data", "status", "strict_status"),
    [
        ("copy.jpg", JPEG, 0, 0),
        ("notes.txt", b"hello", 0, 0),
        (".hidden.jpg", JPEG + b"2", 0, 0),
        ("phone.heic", HEIC, 0, 3),
        ("bad.jpg", JPEG + b"bad1", 3, 3),
    ],
)
def test_the_exit_status_says_whether_all_images_are_there(
    run: Run, tmp_path: Path, name: str, data: bytes, status: int, strict_status: int
) -> None:
    folder = write(tmp_path / "in", a_jpg=JPEG)
    (folder / name).write_bytes(data)
    assert run("upload", folder, "-d", "pets").exit_code == status
    assert run("upload", folder, "-d", "others", "--strict").exit_code == strict_status


def test_many_refused_images_are_counted_and_a_few_are_named(run: Run, server: FakeServer, tmp_path: Path) -> None:
    server.state.max_image_bytes = 10
    folder = write(tmp_path / "in", ok_jpg=JPEG, **{f"large{n}_jpg": JPEG + b"x" * 20 for n in range(5)})
    result = run("upload", folder, "-d", "pets")
    assert result.stderr.splitlines()[0] == "  refused 5 IMAGE_TOO_LARGE"
    more, unsent = result.stderr.splitlines()[-2:]
    assert more == "    and 2 more"
    assert unsent == "  5 refused files were not sent: only the report of an upload names them (--json names all)"


def test_refused_images_are_listed_with_their_reason_when_asked_for(run: Run, tmp_path: Path) -> None:
    run("upload", write(tmp_path / "in", a_jpg=JPEG, c_jpg=JPEG + b"bad1"), "-d", "pets")
    shown = run("images", "pets")
    assert "c.jpg" not in shown.stdout
    assert shown.stderr == "1 refused image is not shown; add --status REJECTED to see it\n"
    refused = run("images", "pets", "--status", "REJECTED")
    assert "c.jpg  ANIMATED scripted" in refused.stdout
    assert refused.stderr == (
        "Files that were not sent (too large, unreadable) are known to their upload alone: run it again to see them.\n"
    )


def test_a_file_that_was_not_sent_is_named_by_each_run_of_its_upload(
    run: Run, server: FakeServer, tmp_path: Path
) -> None:
    server.state.max_image_bytes = 10
    folder = write(tmp_path / "in", ok_jpg=JPEG, large_jpg=JPEG + b"x" * 20)
    for result in (run("upload", folder, "-d", "pets"), run("upload", folder, "-d", "pets")):
        assert result.stderr.splitlines() == [
            "  refused 1 IMAGE_TOO_LARGE",
            f"    large.jpg: it has {len(JPEG) + 20} bytes, at most 10 are allowed",
            "  1 refused file was not sent: only the report of an upload names it",
        ]


@pytest.mark.parametrize("command", ["embed", "neighbors", "preview"])
def test_other_commands_take_the_same_files_and_say_what_they_passed_over(
    run: Run, tmp_path: Path, command: str
) -> None:
    folder = write(tmp_path / "in", a_jpg=JPEG, b=JPEG + b"2", notes_txt=b"hello")
    (folder / "broken.jpg").symlink_to("nowhere")
    run("upload", folder, "-d", "pets")
    arguments = {
        "embed": ["embed", folder, "-m", "backbones/resnet18", "-o", tmp_path / "e.npy"],
        "neighbors": ["neighbors", "pets", folder, "-m", "backbones/resnet18"],
        "preview": ["preview", folder],
    }
    result = run(*arguments[command])
    assert result.exit_code == 0, result.output
    assert f"passed over 1 BROKEN_LINK: {folder}/broken.jpg" in result.stderr
    assert f"passed over 1 NOT_AN_IMAGE: {folder}/notes.txt" in result.stderr
