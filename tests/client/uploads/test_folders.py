"""The files of messy folders: each is taken, or counted for a reason."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import manyview
from manyview._uploads.folders import FoundFile, list_paths
from manyview._uploads.skipped import SkippedCount
from manyview.testing import FakeServer

JPEG = b"\xff\xd8\xff\xe0 a picture "
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write a file in the folder of the test."""

    def write(name: str, data: bytes = JPEG) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return write


@pytest.fixture
def link(tmp_path: Path) -> Callable[[str, str], None]:
    """Make a link in the folder of the test. Its target is relative to that folder."""

    def make(name: str, target: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(tmp_path / target)

    return make


def listed(*paths: Path) -> tuple[list[FoundFile], dict[str, list[str]]]:
    """Return the files below paths, and the names that were passed over, by reason."""
    skipped = SkippedCount()
    found = list_paths(paths, skipped)
    return found, {files.reason: sorted(Path(name).name for name in files.names) for files in skipped.summary()}


def keys(*paths: Path) -> list[str]:
    return [file.key for file in listed(*paths)[0]]


def test_images_are_taken_by_their_bytes_whatever_their_names(put: Put, tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jfif", "3.jpe", "4", "5.bak", "6.JPEG", "7.heic"):
        put(f"in/{name}")
    put("in/notes.txt", b"hello")
    put("in/empty", b"")
    put("in/phone.HEIC", HEIC)
    found, skipped = listed(tmp_path / "in")
    assert [file.key for file in found] == ["1.jpg", "2.jfif", "3.jpe", "4", "5.bak", "6.JPEG", "7.heic"]
    assert skipped == {"NOT_AN_IMAGE": ["empty", "notes.txt"], "FORMAT_NOT_READ": ["phone.HEIC"]}


def test_the_hint_on_other_formats_says_what_to_install(put: Put, tmp_path: Path) -> None:
    put("in/phone.heic", HEIC)
    with pytest.raises(ValueError, match=r"1 FORMAT_NOT_READ \(.*phone.heic\)\n.*pip install pillow-heif"):
        list_paths([tmp_path / "in"], SkippedCount())


def test_files_are_in_the_order_of_the_parts_of_their_names_and_labelled_by_their_folder(
    put: Put, tmp_path: Path
) -> None:
    for name in ("b.jpg", "a-b/1.jpg", "a/x/2.jpg", "a/1.jpg", "a.jpg"):
        put(f"in/{name}")
    assert [(file.key, file.label) for file in listed(tmp_path / "in")[0]] == [
        ("a/1.jpg", "a"), ("a/x/2.jpg", "x"), ("a-b/1.jpg", "a-b"), ("a.jpg", ""), ("b.jpg", ""),
    ]  # fmt: skip


def test_shards_beside_images_are_taken(put: Put, tmp_path: Path) -> None:
    put("in/a.jpg")
    put("in/s.tar")
    assert [(file.key, file.is_shard) for file in listed(tmp_path / "in")[0]] == [("a.jpg", False), ("s.tar", True)]


def test_hidden_files_and_all_files_of_hidden_folders_are_left_out(put: Put, tmp_path: Path) -> None:
    for name in ("a.jpg", ".b.jpg", ".git/c.jpg", ".git/deep/d.txt", "x/.e/f"):
        put(f"in/{name}")
    found, skipped = listed(tmp_path / "in")
    assert [file.key for file in found] == ["a.jpg"]
    assert skipped == {"HIDDEN": [".b.jpg", "c.jpg", "d.txt", "f"]}
    assert keys(tmp_path / "in" / ".git") == ["c.jpg", "deep/d.txt"], "a hidden folder that the caller names is listed"


def test_links_to_folders_and_files_are_followed(put: Put, link: Callable[[str, str], None], tmp_path: Path) -> None:
    put("all/cat/1.jpg")
    put("all/dog/2.jpg")
    put("one.jpg")
    put("in/own/3.jpg")
    link("in/cat", "all/cat")
    link("in/other.jpg", "one.jpg")
    found, skipped = listed(tmp_path / "in")
    assert [(file.key, file.label) for file in found] == [("cat/1.jpg", "cat"), ("other.jpg", ""), ("own/3.jpg", "own")]
    assert found[0].path.read_bytes() == JPEG
    assert skipped == {}
    link("root", "in")
    assert len(keys(tmp_path / "root")) == 3


def test_a_file_with_a_place_of_its_own_is_not_taken_again_under_a_link(
    put: Put, link: Callable[[str, str], None], tmp_path: Path
) -> None:
    put("in/z/1.jpg")
    put("in/.cache/2.jpg")
    link("in/a.jpg", "in/z/1.jpg")
    link("in/b", "in/z")
    link("in/c.jpg", "in/.cache/2.jpg")
    link("in/d.jpg", "in/.cache/2.jpg")
    found, skipped = listed(tmp_path / "in")
    assert [file.key for file in found] == ["c.jpg", "z/1.jpg"]
    assert skipped == {"LINK_VISITED": ["a.jpg", "b", "d.jpg"], "HIDDEN": ["2.jpg"]}


def test_cycles_of_links_end(put: Put, link: Callable[[str, str], None], tmp_path: Path) -> None:
    put("in/a/1.jpg")
    put("2.jpg")
    link("in/a/up", "in")
    link("in/a/further", "")
    link("in/self", "in/self")
    found, skipped = listed(tmp_path / "in")
    assert [file.key for file in found] == ["a/1.jpg", "a/further/2.jpg"]
    assert skipped == {"LINK_VISITED": ["in", "up"], "BROKEN_LINK": ["self"]}


def test_broken_links_pipes_and_folders_that_cannot_be_read_cost_only_themselves(
    put: Put, link: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("in/a.jpg")
    put("in/locked/b.jpg")
    put("in/secret")
    link("in/broken.jpg", "nowhere")
    os.mkfifo(tmp_path / "in" / "pipe.jpg")
    refuse(monkeypatch, "scandir", "locked")
    refuse(monkeypatch, "open", "secret")
    found, skipped = listed(tmp_path / "in")
    assert [file.key for file in found] == ["a.jpg"]
    assert skipped == {
        "BROKEN_LINK": ["broken.jpg"],
        "NOT_A_FILE": ["pipe.jpg"],
        "UNREADABLE_FILE": ["locked", "secret"],
    }


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, name: str) -> None:
    """Let `open` or `os.scandir` fail as for a user without rights: the tests may run as root, who has all rights."""
    owner = "builtins" if call == "open" else "os"
    real = getattr(__import__(owner), call)

    def refused(path: object, *arguments: object, **options: object) -> object:
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(f"{owner}.{call}", refused)


def test_names_that_are_no_text_are_taken_and_shown_with_replacements(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.jpg")
    with open(path, "wb") as file:
        file.write(JPEG)
    (found,), _ = listed(tmp_path)
    assert found.key == "caf\N{REPLACEMENT CHARACTER}.jpg"
    assert found.path.read_bytes() == JPEG


def test_one_path_that_cannot_be_read_is_an_error_and_among_others_it_costs_only_itself(
    put: Put, link: Callable[[str, str], None], tmp_path: Path
) -> None:
    good = put("a.jpg")
    link("broken", "nowhere")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError, match=r"broken is a link to .*nowhere, which does not exist"):
        listed(tmp_path / "broken")
    with pytest.raises(OSError, match="neither a file nor a folder"):
        listed(tmp_path / "pipe")
    found, _ = listed(good, tmp_path / "broken", tmp_path / "pipe")
    assert [file.error is None for file in found] == [True, False, False]
    with pytest.raises(
        FileNotFoundError, match=r"none of the 2 paths can be read: .*missing: does not exist; .*broken: is a link to "
    ):
        listed(tmp_path / "missing", tmp_path / "broken")


def test_a_folder_without_images_among_others_is_no_error(put: Put, tmp_path: Path) -> None:
    put("a/1.jpg")
    put("b/notes.txt", b"hello")
    assert listed(tmp_path / "a", tmp_path / "b")[1] == {"NOT_AN_IMAGE": ["notes.txt"]}
    (tmp_path / "c").mkdir()
    with pytest.raises(ValueError, match=r"no images below .*/c: it has no files"):
        listed(tmp_path / "c")


OUTSIDE = ("1.jpg", "2.jpg", "notes.txt", ".hidden.jpg")
NAMES = st.sampled_from(["a", "b", ".h", "c.jpg", "d.png", "e.heic", "f.txt", "g"])
KINDS = st.sampled_from(
    ["image", "copy", "refused", "text", "heic", "broken", "pipe", "link", "outside", "root", "one"]
)


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeServer]:
    with FakeServer() as server:
        server.state.rejects[JPEG + b"refused"] = "ANIMATED"
        yield server


@settings(max_examples=60)
@given(entries=st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=3), KINDS), max_size=12))
def test_the_report_adds_up_to_the_files_and_links_of_any_folder(
    entries: list[tuple[list[str], str]], fake: FakeServer
) -> None:
    with tempfile.TemporaryDirectory() as scratch, manyview.Client(fake.target) as client:
        root = Path(scratch) / "in"
        expected = make_messy(Path(scratch), entries)
        dataset = f"messy-{len(fake.state.datasets)}"
        report = client.upload(root, dataset).upload
        assert report is not None
        assert report.num_found == expected
        named = [name for files in report.skipped for name in files.names]
        assert len(named) == len(set(named)) == report.num_skipped
        again = client.upload(root, dataset).upload
        assert again is not None
        assert (again.num_found, again.num_stored, again.num_rejected) == (expected, 0, 0)
        assert again.resumed_from == report.num_stored + report.num_duplicates + report.num_rejected
        assert again.num_rejected_before == report.num_rejected


def make_messy(scratch: Path, entries: list[tuple[list[str], str]]) -> int:
    """Make a folder "in" with these entries. Return how many files and links an upload of it must find."""
    root, outside = scratch / "in", scratch / "outside"
    for path, data in ((root / "first.jpg", b"first"), *((outside / name, name.encode()) for name in OUTSIDE)):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(JPEG + data if path.suffix == ".jpg" else data)
    contents = {"copy": JPEG + b"first", "refused": JPEG + b"refused", "text": b"hello", "heic": HEIC}
    targets = {"broken": Path("nowhere"), "link": root / "first.jpg", "outside": outside, "root": root}
    for number, (parts, kind) in enumerate(entries):
        path = root.joinpath(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "pipe":
                os.mkfifo(path)
            elif kind == "one":
                path.symlink_to(outside / "1.jpg")
            elif kind in targets:
                path.symlink_to(targets[kind])
            else:
                with path.open("xb") as file:
                    file.write(contents.get(kind, JPEG + str(number).encode()))
        except (FileExistsError, NotADirectoryError):
            continue  # another entry has this name, or is above it
    return count_messy(root, outside)


def count_messy(root: Path, outside: Path) -> int:
    """Count the files and links below a folder. The folder outside counts if a link to it is followed."""
    inside = below(root)
    leads_out = [path for path in inside if path.is_symlink() and path.resolve() == outside.resolve()]
    is_followed = any(not is_hidden(path.relative_to(root)) for path in leads_out)
    # The link that is followed is not counted itself. Its files are.
    return len(inside) - 1 + len(below(outside)) if is_followed else len(inside)


def below(folder: Path) -> list[Path]:
    """Return the files and links below a folder, without those that lie behind links."""
    found = [Path(at, name) for at, folders, files in os.walk(folder) for name in (*folders, *files)]
    return [path for path in found if path.is_symlink() or not path.is_dir()]


def is_hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)
