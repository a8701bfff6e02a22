"""Previews as arrays, as a contact sheet, and on the command line."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import manyview
from manyview._cli.main import app
from manyview._results import contact_sheet
from manyview.testing import FakeServer
from manyview.v1 import train_job_service_pb2 as pb


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three files; the fake server takes any bytes for an image."""
    paths = [tmp_path / f"{name}.jpg" for name in "abc"]
    for path in paths:
        path.write_bytes(path.stem.encode())
    return paths


def wanted(server: FakeServer) -> pb.PreviewViewsRequest:
    (request,) = server.requests("PreviewViews")
    return request


def test_images_are_previewed_with_a_method_and_its_configuration(
    client: manyview.Client, server: FakeServer, files: list[Path]
) -> None:
    found = client.preview(files, "moco", config={"views": {"blur": {"probability": 0}}}, seed=3, epoch=2)
    request = wanted(server)
    assert (request.method, request.epoch, request.train_job, request.dataset) == ("moco", 2, "", "")
    assert dict(request.config)["seed"] == 3
    assert [image.image.data for image in request.images] == [b"a", b"b", b"c"]
    assert found.keys == tuple(path.as_posix() for path in files)
    assert (len(found), found.decode_size, found.shapes) == (3, 8, ((8, 8),) * 3)
    assert [len(views) for views in found.views] == [2, 2, 2]
    for original, views in zip(found.originals, found.views, strict=True):
        assert original is not None
        assert (original.dtype, original.shape) == (np.uint8, (8, 8, 3))
        assert np.array_equal(views[1], original)
    assert found.parameters[0][0] == {"crop": {"top": 0, "left": 0, "height": 8, "width": 8}}
    assert found.pipelines == ((0, 0),) * 3
    assert found.errors == {}


def test_a_job_s_views_are_of_its_own_images_or_of_others(client: manyview.Client, server: FakeServer) -> None:
    client.upload([b"a", b"b"], "pets")
    job = client.train("pets", job_id="mine")
    listed = client.preview(list(client.images("pets")), job=job, epoch=3)
    assert listed.keys == ("00000000", "00000001")
    by_key = client.preview("00000001", job="mine", dataset="pets")
    assert np.array_equal(by_key.views[0][0], listed.views[1][0])
    assert np.array_equal(client.preview(b"b", job=job).views[0][0], listed.views[1][0])
    requests = server.requests("PreviewViews")
    assert {request.train_job for request in requests} == {"trainJobs/mine"}
    assert [request.dataset for request in requests] == ["", "datasets/pets", ""]
    assert [request.images[0].WhichOneof("source") for request in requests] == ["stored", "stored", "image"]
    assert all(request.method == "" and not request.HasField("config") for request in requests)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"job": "j", "method": "simclr"}, "method has no effect with job"),
        ({"job": "j", "config": {}}, "config has no effect with job"),
        ({"job": "j", "seed": 0}, "seed has no effect with job"),
        ({"seed": 0, "config": {"seed": 1}}, "seed is given twice"),
    ],
)
def test_what_would_have_no_effect_is_refused(client: manyview.Client, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        client.preview(b"a", **arguments)


def test_images_that_cannot_be_read_have_an_error_and_keep_their_place(
    client: manyview.Client, server: FakeServer
) -> None:
    server.state.max_image_bytes = 5
    found = client.preview([b"a", b"too large", b""])
    assert {at: error.reason for at, error in found.errors.items()} == {1: "IMAGE_TOO_LARGE", 2: "IMAGE_EMPTY"}
    assert found.originals[1] is None
    assert [len(views) for views in found.views] == [2, 0, 0]
    assert [image.image.data for image in wanted(server).images] == [b"a", b"", b""]
    assert found.sheet().height > 3 * 144


def test_what_does_not_fit_into_a_message_is_refused_before_it_is_sent(
    client: manyview.Client, server: FakeServer
) -> None:
    with pytest.raises(ValueError, match="2 images of 40,000,000 bytes together do not fit into a message"):
        client.preview([bytes(20_000_000)] * 2)
    assert server.requests("PreviewViews") == []


def test_a_long_list_is_not_read_to_its_end(client: manyview.Client, server: FakeServer) -> None:
    server.fail("PreviewViews", "INVALID_ARGUMENT", violations={"images": "17 images; a preview is of 1 to 16"})
    with pytest.raises(manyview.InvalidArgument, match="1 to 16"):
        client.preview(b"%d" % number for number in iter(int, 1))
    assert len(wanted(server).images) == 17


def made(**changes: Any) -> manyview.Preview:
    """Two images, one of them wide, with three views in two sizes; all that can be done is done to the first view."""
    random = np.random.default_rng(0)
    everything = {
        "crop": {"top": 1, "left": 2, "height": 30, "width": 40},
        "horizontal_flip": True,
        "vertical_flip": True,
        "quarter_turn": {"degrees": 90},
        "rotation": {"degrees": -12.4},
        "color_jitter": {"order": ["hue", "contrast"], "hue": -0.03, "contrast": 1.5},
        "grayscale": True,
        "blur": {"sigma": 1.26},
        "solarize": {"threshold": 128.0},
        "custom": {"posterize": {"numbers": [0.5]}},
    }
    crop = {"crop": {"top": 0, "left": 0, "height": 64, "width": 64}}

    def noise(side: int) -> np.ndarray[Any, Any]:
        return random.integers(0, 256, (side, side, 3), dtype=np.uint8)

    fields: dict[str, Any] = {
        "keys": ("folder/wide.jpg", "square.png"),
        "image_ids": ("0" * 16, "1" * 16),
        "shapes": ((100, 200), (64, 64)),
        "originals": (noise(64), noise(64)),
        "views": ((noise(48), noise(48), noise(20)),) * 2,
        "pipelines": ((0, 0, 1),) * 2,
        "parameters": ((everything, crop, crop), (crop,) * 3),
        "decode_size": 64,
    }
    return manyview.Preview(**{**fields, **changes})


def test_a_contact_sheet_has_a_row_for_each_image_and_a_column_for_each_view(tmp_path: Path) -> None:
    preview, margin, cell = made(), contact_sheet.GAP_PX, 144
    path = preview.save(tmp_path / "sheet.png")
    with Image.open(path) as image:
        sheet = np.asarray(image.convert("RGB"))
    assert sheet.shape[1] == margin + 4 * (cell + margin)
    top = margin + contact_sheet.LINE_PX
    first_view = sheet[top : top + 144, margin + cell + margin :][:, :144]
    assert np.array_equal(first_view, preview.views[0][0].repeat(3, axis=0).repeat(3, axis=1)), "enlarged by 3"
    small = sheet[top + 2 : top + 142, margin + 3 * (cell + margin) + 2 :][:, :140]
    assert np.array_equal(small, preview.views[0][2].repeat(7, axis=0).repeat(7, axis=1))
    original = sheet[top : top + 144, margin : margin + 144]
    assert (original[[*range(36), *range(108, 144)]] == 255).all(), "twice as wide as high"
    assert (original[36:108] != 255).mean() > 0.9


def test_patches_that_training_hides_are_gray_on_the_sheet() -> None:
    hidden = {"hidden_patches": {"patch_size": 8, "patches": [1, 6]}}  # of 6 x 6
    preview = made(parameters=((hidden, {}, {}), ({}, {}, {})))
    sheet = np.asarray(preview.sheet().convert("RGB"))
    left, top = 2 * contact_sheet.GAP_PX + 144, contact_sheet.GAP_PX + contact_sheet.LINE_PX
    shown = sheet[top : top + 144, left : left + 144]
    expected = preview.views[0][0].copy()
    expected[:8, 8:16] = expected[8:16, :8] = 128
    assert np.array_equal(shown, expected.repeat(3, axis=0).repeat(3, axis=1))


def test_without_pillow_arrays_are_there_and_a_sheet_says_what_is_missing() -> None:
    program = """
import sys
sys.modules["PIL"] = sys.modules["torch"] = None
import manyview
from manyview.testing import FakeServer
with FakeServer() as server, manyview.Client(server.target) as client:
    found = client.preview(b"a")
    assert found.views[0][0].shape == (8, 8, 3)
    try:
        found.sheet()
    except ValueError as error:
        assert "pip install pillow" in str(error)
    else:
        raise AssertionError
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)


def run(server: FakeServer, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["preview", *arguments, "--target", server.target])


def test_the_command_writes_a_sheet_tells_what_was_done_or_both(
    server: FakeServer, files: list[Path], tmp_path: Path
) -> None:
    names, sheet = [str(path) for path in files], tmp_path / "sheet.png"
    written = run(server, *names, "--method", "moco", "--set", "views.blur.probability=0", "-o", str(sheet))
    assert (written.exit_code, written.stdout) == (0, f"{sheet}: 3 images, 6 views\n")
    with Image.open(sheet) as image:
        assert image.format == "PNG"
    request = wanted(server)
    assert request.method == "moco"
    views: Any = request.config["views"]
    assert views["blur"]["probability"] == 0
    listed = run(server, *names).stdout.splitlines()
    assert listed[0].split() == ["IMAGE", "VIEW", "PIPELINE", "SIZE", "STEPS"]
    assert len(listed) == 7
    assert listed[1].endswith("crop 8x8 at 0,0")
    summary = json.loads(run(server, names[0], "--seed", "3", "--epoch", "1", "--json").stdout)
    assert summary["decode_size"] == 8
    assert summary["images"][0]["views"][1] == {
        "pipeline": 0,
        "size": 8,
        "parameters": {"crop": {"top": 0, "left": 0, "height": 8, "width": 8}},
    }


def test_the_command_previews_a_job_s_images(client: manyview.Client, server: FakeServer) -> None:
    client.upload([b"a"], "pets")
    client.train("pets", job_id="mine")
    done = run(server, "00000000", "--job", "mine", "--epoch", "3", "--dataset", "pets", "--json")
    assert done.exit_code == 0
    request = wanted(server)
    assert (request.train_job, request.epoch, request.dataset) == ("trainJobs/mine", 3, "datasets/pets")
    assert not request.HasField("config")


def test_an_image_that_cannot_be_read_makes_the_command_fail_in_the_end(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    done = run(server, str(tmp_path / "empty.png"), "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["images"][0]["error"]["reason"] == "IMAGE_EMPTY"
    assert "IMAGE_EMPTY" in done.stderr


def test_a_notebook_shows_the_sheet(
    client: manyview.Client, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = client.preview(files)
    assert repr(found) == "<manyview.Preview 3 images, 6 views>"
    shown = found._repr_png_()
    assert shown is not None
    with Image.open(io.BytesIO(shown)) as picture:
        assert picture.size == found.sheet().size
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert found._repr_png_() is None
