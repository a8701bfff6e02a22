"""Shards from the caller to the server, through the SDK and the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import manyview
from manyview._cli.main import app
from manyview.testing import FakeServer

Shard = Callable[..., Path]


def keys(client: manyview.Client, dataset: str) -> list[str]:
    return [image.key for image in client.images(dataset)]


@pytest.mark.parametrize("pattern", ["s-{000..002}.tar", "s-*.tar"])
def test_a_pattern_uploads_all_its_shards(pattern: str, client: manyview.Client, shard: Shard, tmp_path: Path) -> None:
    for number in range(3):
        shard([(f"{number}.jpg", b"%d" % number)], name=f"s-{number:03d}.tar")
    assert client.upload(tmp_path / pattern, "pets").num_images == 3
    assert keys(client, "pets") == ["0", "1", "2"]


def test_a_pattern_that_no_file_fits_is_named(client: manyview.Client, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"s-\*\.tar does not exist"):
        client.upload(tmp_path / "s-*.tar", "pets")


@pytest.mark.parametrize("name", ["A.TAR", "a.tgz", "a.tar.gz"])
def test_a_shard_in_a_folder_and_in_an_iterable_is_found_by_its_name(
    name: str, client: manyview.Client, shard: Shard, tmp_path: Path
) -> None:
    path = shard([("a.jpg", b"a"), ("a.cls", b"3")], name=name, mode="w:gz")
    for dataset, images in (("one", tmp_path), ("two", path), ("three", iter([path]))):
        client.upload(images, dataset)
        assert [(image.key, image.label) for image in client.images(dataset)] == [("a", "3")]


def test_the_command_line_chooses_image_and_label(
    server: FakeServer, client: manyview.Client, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANYVIEW_TARGET", server.target)
    path = shard([("a.jpg", b"photo"), ("a.png", b"mask"), ("a.txt", b"a dog on a beach"), ("a.cls", b"3")])
    options = ["--dataset", "pets", "--image", "png", "--label", "txt"]
    result = CliRunner().invoke(app, ["upload", str(path), *options])
    assert result.exit_code == 0, result.output
    assert [(image.key, image.label) for image in client.images("pets")] == [("a", "a dog on a beach")]


def test_another_choice_is_another_upload(client: manyview.Client, shard: Shard) -> None:
    path = shard([("a.jpg", b"photo"), ("a.png", b"mask")])
    client.upload(path, "pets", image="jpg")
    assert client.upload(path, "pets", image="png").num_images == 2


def test_a_choice_of_members_without_shards_is_refused(client: manyview.Client, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ValueError, match=r"image=jpg chooses members of shards, but no path of a shard was given$"):
        client.upload(tmp_path, "pets", image="jpg")
    with pytest.raises(ValueError, match=r"label=cat chooses members of shards, .*; `labels` gives labels to images"):
        client.upload([b"a"], "pets", label="cat")


def test_a_second_upload_of_a_shard_sends_nothing_again(client: manyview.Client, shard: Shard) -> None:
    path = shard([("0.jpg", b"a"), ("1.jpg", b"b"), ("0.cls", b"1"), ("1.jpg", b"c"), ("2.jpg", b"")])
    client.upload(path, "pets")
    report = client.upload(path, "pets").upload
    assert report is not None
    assert report.resumed_from == 3


def test_a_damaged_shard_among_others_costs_only_the_rest_of_itself(client: manyview.Client, shard: Shard) -> None:
    paths = [shard([(f"{n}{m}.jpg", b"%d%d" % (n, m) * 400) for m in range(3)], name=f"{n}.tar") for n in range(3)]
    paths[1].write_bytes(paths[1].read_bytes()[:2500])
    report = client.upload(paths, "pets").upload
    assert report is not None
    assert keys(client, "pets") == ["00", "01", "02", "10", "20", "21", "22"]
    assert [(image.key, image.error.reason) for image in report.rejected] == [(str(paths[1]), "SHARD_UNREADABLE")]
    assert "it can be read up to byte 1,536: " in report.rejected[0].error.message


def test_a_shard_without_images_says_what_it_has(client: manyview.Client, shard: Shard) -> None:
    path = shard([("a.json", b"{}"), ("inner.tar", b"-")])
    with pytest.raises(ValueError, match=r"there are no images to upload: 2 files, 2 NO_IMAGE \(.*a\.tar:a\.json, "):
        client.upload(path, "pets")
    path.write_bytes(b"<html>404</html>" * 50)
    with pytest.raises(manyview.UploadRejected, match="SHARD_UNREADABLE it is not a readable tar file"):
        client.upload(path, "pets")
    assert client.datasets() == []
