"""The kinds of images that a caller can pass, their encodings, and the errors about everything else."""

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manyview._uploads.encoded_image import EncodedImage
from manyview._uploads.sources import open_source

LIMIT = 12 * 1024 * 1024


def pull(images: Any, **options: Any) -> list[EncodedImage]:
    return list(open_source(images, max_image_bytes=LIMIT, **options))


def decoded(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def noise(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_a_folder_is_walked_in_order_and_the_folder_of_an_image_is_its_label(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "a/x/1.jpeg", "top.png", ".hidden.jpg", "a/readme.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    source = open_source(tmp_path, max_image_bytes=LIMIT)
    assert [(image.key, image.label) for image in source] == [("a/x/1.jpeg", "x"), ("b/2.jpg", "b"), ("top.png", "")]
    assert (source.total, source.identity) == (3, ["a/x/1.jpeg", "b/2.jpg", "top.png"])


def test_files_travel_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8 not even a picture")
    assert [image.data for image in pull([str(path), path])] == [path.read_bytes()] * 2


def test_a_file_above_the_limit_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x" * 11)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    (image,) = open_source(path, max_image_bytes=10)
    assert image.error is not None
    assert (image.error.reason, image.error.message) == ("IMAGE_TOO_LARGE", "it has 11 bytes, at most 10 are allowed")


@pytest.mark.parametrize("shape", [(5, 7, 3), (1200, 1300, 3)], ids=["as PPM", "as PNG"])
def test_pixels_survive_the_way_exactly(shape: tuple[int, ...]) -> None:
    array = noise(*shape)
    (image,) = pull(array)
    assert image.data[:2] == (b"P6" if array.nbytes <= 4 * 1024 * 1024 else b"\x89P")
    assert np.array_equal(decoded(image.data), array)


def test_grey_and_strided_arrays_and_batches_are_understood() -> None:
    grey, batch = noise(4, 6), noise(3, 4, 6, 3)
    assert np.array_equal(decoded(pull(grey)[0].data), np.repeat(grey[:, :, None], 3, axis=2))
    assert np.array_equal(decoded(pull([grey[:, :, None]])[0].data)[..., 0], grey)
    assert [decoded(image.data).tolist() for image in pull(batch[:, ::-1])] == batch[:, ::-1].tolist()


def test_pil_images_are_turned_upright_and_made_rgb() -> None:
    image = Image.fromarray(noise(4, 6)).convert("L")
    image.getexif()[0x0112] = 6
    assert decoded(pull(image)[0].data).shape == (6, 4, 3)


@pytest.mark.parametrize(
    ("images", "error", "says"),
    [
        ("/no/such/folder", FileNotFoundError, "/no/such/folder does not exist"),
        (["/no/such/file.jpg"], FileNotFoundError, "/no/such/file.jpg does not exist"),
        (42, TypeError, "images must be a path, bytes, pixels or an iterable of these, not int"),
        ({"a": b""}, TypeError, "images must not be a mapping"),
        ([b"", 42], TypeError, "image 1: int is not a path, bytes, a binary file, a PIL image or an array"),
        ([("a", "b", "c")], TypeError, "must be a pair .image, label., not a tuple of 3"),
        ([{"pixels": 1}], TypeError, "lacks the field 'image'; it has pixels"),
        (noise(3, 8, 8), ValueError, "image 0: an image array must be .* channels come last"),
        ([b"", noise(4, 4) * 1.0], ValueError, r"image 1: an image of floats must lie in \[0, 1\], not in"),
        (io.StringIO("text"), TypeError, "image 0: the file was opened as text: open it with mode 'rb'"),
    ],
)
def test_what_is_no_image_is_named(images: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        pull(images)


def test_a_folder_without_images_says_what_it_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("-")
    with pytest.raises(ValueError, match=r"no images below .*: 1 file, 1 NOT_AN_IMAGE \(.*notes.md\)"):
        pull(tmp_path)


def test_open_files_are_read_from_their_start(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    buffer.write(b"an image\nof two lines")
    (tmp_path / "a.jpg").write_bytes(b"a file")
    with (tmp_path / "a.jpg").open("rb") as file, zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b.jpg", b"a member")
        with archive.open("b.jpg") as member:
            assert [image.data for image in pull([buffer, file, member])] == [buffer.getvalue(), b"a file", b"a member"]
    assert [image.data for image in pull(buffer)] == [buffer.getvalue()]


def test_pixels_beyond_the_limit_are_compressed_and_marked_also_with_a_label() -> None:
    small, large = noise(4, 4, 3), noise(60, 60, 3)
    images = list(open_source([small, large], max_image_bytes=9_000, labels=["a", "b"]))
    assert [(image.is_recompressed, image.label) for image in images] == [(False, "a"), (True, "b")]


def test_pixels_that_fit_in_no_form_are_refused_as_a_file_is() -> None:
    (image,) = open_source(noise(60, 60, 3), max_image_bytes=100)
    assert image.error is not None
    assert image.error.reason == "IMAGE_TOO_LARGE"


def test_a_file_that_cannot_be_read_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It vanishes or becomes unreadable after it was listed, or an iterable names it."""
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    source = open_source(tmp_path, max_image_bytes=LIMIT)
    (tmp_path / "b.jpg").unlink()
    real = Path.read_bytes
    refused = PermissionError(13, "Permission denied", "c.jpg")
    monkeypatch.setattr(Path, "read_bytes", lambda path: raises(refused) if path.name == "c.jpg" else real(path))
    assert [(image.key, image.error and image.error.reason) for image in source] == [
        ("a.jpg", None), ("b.jpg", "UNREADABLE_FILE"), ("c.jpg", "UNREADABLE_FILE"),
    ]  # fmt: skip
    good = tmp_path / "a.jpg"
    found = pull(iter([(good, "x"), (tmp_path / "no.jpg", "y"), (tmp_path, "z")]))
    assert [image.error and image.error.message for image in found] == [
        None, "No such file or directory", "it is not a file",
    ]  # fmt: skip


def raises(error: Exception) -> bytes:
    raise error


def test_pairs_mappings_and_labels_label() -> None:
    assert [image.label for image in pull([(b"a", "cat"), (b"b", 3), (b"c", None)])] == ["cat", "3", ""]
    (image,) = pull([{"image": b"a", "label": "cat", "key": "k"}])
    assert (image.key, image.label) == ("k", "cat")
    assert [image.label for image in pull([b"a", b"b"], labels=["x", 2])] == ["x", "2"]
    assert [image.label for image in pull([b"a", b"b"], labels={"00000001": "y"})] == ["", "y"]


@pytest.mark.parametrize("labels", [["x"], ["x", "y", "z"]], ids=["too few", "too many"])
def test_labels_that_do_not_fit_the_images_are_an_error(labels: list[str]) -> None:
    with pytest.raises(ValueError, match="given, but there are 2 images"):
        pull([b"a", b"b"], labels=labels)


def test_labels_for_keys_that_no_image_has_are_an_error_that_names_some_of_them(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    with pytest.raises(ValueError, match=r"no image has the key 'b.jpg'; the first keys are 'a.jpg'"):
        open_source(tmp_path, max_image_bytes=LIMIT, labels={"a.jpg": "x", "b.jpg": "y"})
    wrong = {f"{n}.jpg": "x" for n in range(5)}
    with pytest.raises(
        ValueError, match=r"the key '0.jpg', '1.jpg', '2.jpg' and 2 more; the first keys are '00000000'"
    ):
        pull(iter([b"a"]), labels=wrong)
    with pytest.raises(ValueError, match="no image has the key 0; the first keys are '00000000'"):
        pull([b"a"], labels={0: "x"})
    assert [image.label for image in pull(tmp_path, labels={"a.jpg": "x"})] == ["x"]


def test_iterables_are_pulled_one_at_a_time() -> None:
    pulled: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            pulled.append(len(pulled))
            yield b"image"

    images = iter(open_source(endless(), max_image_bytes=LIMIT))
    next(images)
    next(images)
    assert pulled == [0, 1]


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_shards_give_images_with_labels_from_cls_txt_or_json(tmp_path: Path) -> None:
    fields = json.dumps({"key": "dogs/3.jpg", "label": "dog", "sha256": "…"}).encode()
    path = shard(
        tmp_path / "a.tar",
        {
            "000.jpg": b"0", "000.cls": b"7\n", "x/001.png": b"1", "x/001.txt": b"cat", "002.json": b"{}",
            "003.webp": b"3", "003.json": fields, "004.jpg": b"4", "005.jpg": b"5",
            "005.json": b'{"key": 0, "label": 0}',
        },
    )  # fmt: skip
    found = [(image.key, image.label, image.data) for image in pull(path)]
    assert found == [
        ("000", "7", b"0"), ("x/001", "cat", b"1"), ("dogs/3.jpg", "dog", b"3"), ("004", "", b"4"), ("0", "0", b"5"),
    ]  # fmt: skip
    assert len(pull(tmp_path)) == 5


def test_a_shard_that_cannot_be_read_costs_only_itself(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"1")
    (tmp_path / "a.tar").write_bytes(b"x" * 2000)
    shard(tmp_path / "b.tar", {"t.jpg": b"2"})
    found = pull(tmp_path)
    assert [(image.key, image.error and image.error.reason) for image in found] == [
        ("1.jpg", None), ("a.tar", "SHARD_UNREADABLE"), ("t", None),
    ]  # fmt: skip
