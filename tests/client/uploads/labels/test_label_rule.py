"""The label of an image comes from the caller, from the image itself, or from its folder."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import manyview
from manyview._uploads.encoded_image import EncodedImage
from manyview._uploads.sources import open_source
from manyview.testing import FakeServer


def pull(images: Any, labels: Any = None) -> list[EncodedImage]:
    return list(open_source(images, max_image_bytes=1000, labels=labels))


def labels_of(images: Any, labels: Any = None) -> list[str]:
    return [image.label for image in pull(images, labels)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files, whose keys are 2024/05/a.jpg, cat/b.jpg and top.jpg, in this order."""
    for name in ("2024/05/a.jpg", "cat/b.jpg", "top.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(name.encode())
    return tmp_path / "photos"


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Two samples: the first one labels itself, the other one does not."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (("x/cat/1.jpg", b"1"), ("x/cat/1.cls", b"7"), ("x/dog/2.jpg", b"2")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return tmp_path / "a.tar"


@pytest.mark.parametrize(
    ("labels", "in_a_folder", "in_a_shard"),
    [
        (None, ["05", "cat", ""], ["7", ""]),
        ("folder", ["05", "cat", ""], ["7", "dog"]),
        ("path", ["2024/05", "cat", ""], ["7", "x/dog"]),
        ("none", ["", "", ""], ["", ""]),
    ],
)
def test_a_word_says_which_folders_label(
    folder: Path, shard: Path, labels: str | None, in_a_folder: list[str], in_a_shard: list[str]
) -> None:
    assert labels_of(folder, labels) == in_a_folder
    assert labels_of(shard, labels) == in_a_shard
    assert labels_of([folder, shard], labels) == in_a_folder + in_a_shard


def test_files_that_are_named_are_labelled_with_folders_only_on_request(folder: Path) -> None:
    files = [folder / "2024/05/a.jpg", folder / "top.jpg"]
    whole = folder.as_posix().strip("/")
    assert labels_of(files) == ["", ""]
    assert labels_of(files, "folder") == ["05", "photos"]
    assert labels_of(files, "path") == [f"{whole}/2024/05", whole]
    assert labels_of(iter(files), "folder") == ["05", "photos"]


def test_pairs_and_mappings_keep_their_labels_unless_none_are_wanted() -> None:
    images = [(b"a", 3.0), (b"b", float("nan")), (b"c", np.int64(2)), {"image": b"d", "label": "cat\n", "key": "dog/d"}]
    assert labels_of(images) == ["3", "", "2", "cat"]
    assert labels_of(images, "path") == ["3", "", "2", "cat"]
    assert labels_of([(b"a", np.array([0, 1]))], "none") == [""]
    assert labels_of([{"image": b"d", "label": None, "key": "dog/d"}], "folder") == ["dog"]


def test_a_label_of_another_kind_in_a_pair_ends_the_upload_and_a_bad_text_costs_only_its_image() -> None:
    with pytest.raises(TypeError, match=r"image 00000001: .*array of shape \(2,\); for a one-hot row, give its argmax"):
        pull([(b"a", 0), (b"b", np.array([0, 1]))])
    with pytest.raises(TypeError, match=r"image k: .*a list of 2"):
        pull([{"image": b"a", "label": ["cat", "dog"], "key": "k"}])
    first, second = pull([(b"a", "cat\ndog"), (b"b", "dog")])
    assert first.error is not None
    assert first.error.reason == "LABEL_INVALID"
    assert "the control character" in first.error.message
    assert (second.label, second.error) == ("dog", None)


def test_labels_in_order_end_at_a_shard_that_cannot_be_read(shard: Path, tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(shard.read_bytes()[:600])
    with pytest.raises(ValueError, match=r"0\.tar: .*, so the labels that follow have no place; give labels by key"):
        pull([tmp_path / "0.tar", shard], ["a", "b", "c", "d"])
    assert "dog" in labels_of([tmp_path / "0.tar", shard], {"x/dog/2": "dog"})


class Column:
    """A column of a table: it is sized, it iterates over its values, and it has an index that is of no interest."""

    ndim = 1

    def __len__(self) -> int:
        return 3

    def tolist(self) -> list[Any]:
        return ["x", None, 3.0]


@pytest.mark.parametrize(
    ("labels", "texts"),
    [
        (["x", None, 3], ["x", "", "3"]),
        (np.array([0, 1, 2]), ["0", "1", "2"]),
        (np.array([0.0, np.nan, 2.0]), ["0", "", "2"]),
        (np.array([[0], [1], [2]]), ["0", "1", "2"]),
        (np.ma.array([0, 1, 2], mask=[False, True, False]), ["0", "", "2"]),
        (Column(), ["x", "", "3"]),
        (range(3), ["0", "1", "2"]),
        ({"cat/b.jpg": "dog"}, ["05", "dog", ""]),
        ({Path("cat/b.jpg"): float("nan"), "top.jpg": 1.0}, ["05", "", "1"]),
    ],
)
def test_labels_come_in_order_or_by_key_and_win_over_folders(folder: Path, labels: Any, texts: list[str]) -> None:
    assert labels_of(folder, labels) == texts


def test_labels_win_over_those_of_shards_and_pairs(shard: Path) -> None:
    assert labels_of(shard, {"x/cat/1": "mine"}) == ["mine", ""]
    assert labels_of(shard, ["a", "b"]) == ["a", "b"]
    assert labels_of([(b"a", "x"), (b"b", "y")], {"00000000": "mine"}) == ["mine", "y"]


def test_a_file_gives_labels_by_key(folder: Path, shard: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("key,label\ntop.jpg, first \n2024/05/a.jpg,\n")
    assert labels_of(folder, table) == labels_of(folder, str(table)) == ["", "cat", "first"]
    lines = tmp_path / "labels.jsonl"
    lines.write_text('{"key": "x/dog/2", "label": 3.0}\n')
    assert labels_of(shard, lines) == ["7", "3"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "a.csv",
            "key,label\ntop.jpg,x\ntop.jpg,y\n",
            "line 3, field key: 'top.jpg' has another label, 'x', at .*line 2",
        ),
        ("a.json", '{"top.jpg": "x", "top.jpg": "y"}', "a.json, key 'top.jpg', field key: 'top.jpg' has another label"),
        ("a.csv", "key,label\nnone.jpg,x\n", "a.csv: no image has the key 'none.jpg'; the first keys are '2024/05/a.j"),
        ("a.tsv", "key\tlabel\ntop.jpg\ta\x07b\n", r"line 2, field label: .* control character '\\x07'"),
    ],
)
def test_what_is_wrong_in_a_file_is_an_error_before_anything_is_sent(
    folder: Path, tmp_path: Path, name: str, content: str, says: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=says):
        open_source(folder, max_image_bytes=1000, labels=tmp_path / name)


def test_one_hot_labels_in_a_file_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"key": "top.jpg", "label": [0, 1]}')
    with pytest.raises(TypeError, match=r"a\.jsonl, line 1, field label: .* for a one-hot row"):
        open_source(folder, max_image_bytes=1000, labels=tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("labels", "error", "says"),
    [
        ("folders", FileNotFoundError, "no file folders; labels must be 'folder', 'path', 'none', a file"),
        (["x"], ValueError, "1 label was given, but there are 3 images"),
        (["x"] * 4, ValueError, "4 labels were given, but there are 3 images"),
        (np.eye(3), TypeError, r"labels\[0\]: an image has one label, not an array of shape \(3,\); for a one-hot row"),
        ([[0, 1], [1, 0], [1, 0]], TypeError, r"labels\[0\]: .* for a one-hot row"),
        ({"top.jpg": "a\x00b"}, ValueError, r"labels\['top.jpg'\]: .* control character"),
        ({"top.jpg", "cat/b.jpg"}, TypeError, "by key or a sequence, not a set"),
        (b"folder", TypeError, "not a bytes"),
        (3, TypeError, "not a int"),
        ((label for label in "abc"), TypeError, "not a generator; make a list of it"),
    ],
)
def test_labels_that_cannot_be_right_are_an_error_before_anything_is_sent(
    folder: Path, labels: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        open_source(folder, max_image_bytes=1000, labels=labels)


def test_a_table_is_refused_because_its_column_is_meant(folder: Path) -> None:
    class Table(list[str]):
        columns, ndim = ("key", "label"), 2

    with pytest.raises(TypeError, match=r'not be a table: give one column, table\["label"\]'):
        open_source(folder, max_image_bytes=1000, labels=Table())


def test_no_data_set_is_made_for_labels_that_are_wrong(
    client: manyview.Client, server: FakeServer, folder: Path
) -> None:
    wrong: list[Any] = [{"no.jpg": "x"}, ["x"], np.eye(3)]
    for labels in wrong:
        with pytest.raises((TypeError, ValueError)):
            client.upload(folder, "pets", labels=labels)
    assert not client.datasets()


def test_the_same_files_with_other_labels_are_another_upload(
    client: manyview.Client, server: FakeServer, folder: Path
) -> None:
    for labels in (None, "path", {"top.jpg": "x"}, ["a", "b", "c"]):
        for resumed_from in (0, 3):
            report = client.upload(folder, "pets", labels=labels).upload
            assert report is not None
            assert report.resumed_from == resumed_from, labels
