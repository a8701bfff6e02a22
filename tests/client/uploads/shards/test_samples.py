"""The images of a shard, their keys and labels, and the account of everything else."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Take = Callable[..., Any]


def test_a_sorted_shard_is_read_as_webdataset_does(take: Take) -> None:
    members = [
        ("train/0.cls", b"7\n"),
        ("train/0.jpg", b"a"),
        ("train/1.JPEG", b"b"),
        ("train/1.json", b'{"label": "x"}'),
    ]
    taken = take(members)
    assert taken.stored == [("train/0", "7", b"a"), ("train/1", "x", b"b")]
    assert taken.passed_over == {}


def test_json_names_key_and_label(take: Take) -> None:
    taken = take(
        [
            ("0.jpg", b"a"),
            ("0.json", b'{"key": "dogs/3.jpg", "class": "dog"}'),
            ("1.jpg", b"b"),
            ("1.json", b'{"key": 0, "label": 0}'),
        ]
    )
    assert taken.stored == [("dogs/3.jpg", "dog", b"a"), ("0", "0", b"b")]


def test_images_whose_names_have_dots_are_stored(take: Take) -> None:
    members = [
        ("22.05.png", b"a"),
        ("22.06.png", b"b"),
        ("Track 2.0 (v1).jpg", b"c"),
        ("s0.input.jpg", b"d"),
        ("v1.2/a.jpg", b"e"),
    ]
    assert [key for key, *_ in take(members).stored] == ["22.05", "22.06", "Track 2.0 (v1)", "s0.input", "v1.2/a"]


def test_an_image_with_dots_takes_the_label_of_its_own_name_or_of_its_sample(take: Take) -> None:
    members = [
        ("22.05.jpg", b"a"), ("22.05.cls", b"4"), ("22.06.jpg", b"b"), ("22.06.cls", b"5"), ("22.07.jpg", b"c"),
        ("s0.input.jpg", b"d"), ("s0.outputs.txt", b"cat"), ("s1.input.jpg", b"e"), ("s1.cls", b"1"),
    ]  # fmt: skip
    assert take(members).labels == {"22.05": "4", "22.06": "5", "22.07": "", "s0.input": "cat", "s1.input": "1"}


def test_two_images_of_one_name_have_their_whole_names_as_keys(take: Take) -> None:
    members = [("0.jpg", b"photo"), ("0.png", b"mask"), ("0.cls", b"3"), ("1.jpg", b"b"), ("1.seg.png", b"c")]
    assert take(members).stored == [
        ("0.jpg", "3", b"photo"),
        ("0.png", "3", b"mask"),
        ("1", "", b"b"),
        ("1.seg", "", b"c"),
    ]


def test_keys_of_a_sample_are_never_the_same(take: Take) -> None:
    members = [(f"x.{rest}", rest.encode()) for rest in ("jpg", "png", "jpg.png", "a.jpg", "a.b.jpg", "JPG")]
    keys = ["x.jpg", "x.png", "x.jpg.png", "x.a", "x.a.b", "x.JPG"]
    assert [key for key, *_ in take(members).stored] == keys
    assert [key for key, *_ in take([*members, ("x.json", b'{"key": "k"}')]).stored] == [f"k{key[1:]}" for key in keys]
    assert [key for key, *_ in take([members[0], members[2]]).stored] == ["x", "x.jpg.png"]


def test_a_label_of_an_image_that_is_not_there_goes_to_no_other_image(take: Take) -> None:
    taken = take([("22.05.jpg", b"a"), ("22.06.jpg", b"b"), ("22.07.cls", b"7"), ("22.08.json", b"{")])
    assert taken.labels == {"22.05": "", "22.06": ""}
    assert taken.passed_over == {"OTHER_MEMBER": ["22.07.cls", "22.08.json"]}


def test_a_key_from_json_stays_unique_if_the_sample_has_two_images(take: Take) -> None:
    taken = take([("0.jpg", b"a"), ("0.png", b"b"), ("0.json", b'{"key": "k"}')])
    assert [key for key, *_ in taken.stored] == ["k.jpg", "k.png"]


def test_the_caller_chooses_the_image(take: Take) -> None:
    members = [("0.jpg", b"photo"), ("0.png", b"mask"), ("1.png", b"mask"), ("2.x.jpg", b"c")]
    taken = take(members, image="jpg")
    assert taken.stored == [("0", "", b"photo")]
    assert taken.passed_over == {"NO_IMAGE": ["1.png", "2.x.jpg"], "OTHER_MEMBER": ["0.png"]}
    assert take(members, image=".PNG").stored == [("0", "", b"mask"), ("1", "", b"mask")]
    assert take(members, image="jpg;png").stored == [("0", "", b"photo"), ("1", "", b"mask")]
    assert take(members, image="x.jpg").stored == [("2", "", b"c")]


def test_a_member_of_any_type_can_be_chosen_as_image(take: Take) -> None:
    assert take([("0.rgb", b"a"), ("0.cls", b"1")], image="rgb").stored == [("0", "1", b"a")]


def test_captions_are_no_labels_and_are_counted(take: Take) -> None:
    members = [
        ("0.jpg", b"a"), ("0.txt", b"a dog on a beach"), ("0.json", b'{"caption": "a dog on a beach", "key": "0"}'),
        ("1.jpg", b"b"), ("1.txt", b"shoe"), ("2.jpg", b"c"), ("2.txt", b"Red shoe\nsize 42"), ("2.cls", b"8"),
        ("3.jpg", b"d"), ("3.txt", b"long " * 1000), ("4.jpg", b"e"), ("4.txt", b"caf\xe9"),
    ]  # fmt: skip
    taken = take(members)
    assert taken.labels == {"0": "", "1": "", "2": "8", "3": "", "4": ""}
    assert taken.passed_over == {"CAPTION": ["0.txt", "1.txt", "2.txt", "3.txt", "4.txt"]}


def test_texts_are_labels_if_all_of_the_shard_look_like_classes(take: Take) -> None:
    members = [("0.jpg", b"a"), ("0.txt", b"great white shark\n"), ("README.txt", b"These are not the images.")]
    taken = take(members)
    assert taken.labels == {"0": "great white shark"}
    assert taken.passed_over == {"NO_IMAGE": ["README.txt"]}


def test_the_caller_chooses_the_label(take: Take) -> None:
    members = [
        ("0.jpg", b"a"),
        ("0.cls", b"3"),
        ("0.txt", b"a dog on a beach"),
        ("0.json", b'{"key": "k", "label": 1}'),
    ]
    assert take(members).labels == {"k": "3"}
    taken = take(members, label="txt")
    assert taken.labels == {"k": "a dog on a beach"}
    assert taken.passed_over == {"OTHER_MEMBER": ["0.cls"]}
    assert take(members, label="id;json").labels == {"k": "1"}


def test_labels_are_found_wherever_they_lie_in_the_shard(take: Take) -> None:
    members = (
        [("0.cls", b"0")] + [(f"{n}.jpg", b"%d" % n) for n in range(4)] + [(f"{n}.cls", b"%d" % n) for n in (3, 1, 2)]
    )
    taken = take(members)
    assert taken.stored == [(f"{n}", f"{n}", b"%d" % n) for n in range(4)]
    assert taken.passed_over == {}


def test_names_that_a_shard_has_twice_keep_their_own_labels(take: Take) -> None:
    members = [("a.jpg", b"1"), ("a.cls", b"1"), ("b.jpg", b"2"), ("a.jpg", b"3"), ("a.cls", b"3")]
    assert take(members).stored == [("a", "1", b"1"), ("b", "", b"2"), ("a", "3", b"3")]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_links_to_files_of_the_shard_are_read(mode: str, take: Take) -> None:
    members = [
        ("f.jpg", "->d/e.jpg"), ("f.cls", "=a.cls"), ("./a.jpg", b"a"), ("a.cls", b"7"), ("b.jpg", "=a.jpg"),
        ("b.cls", b"2"), ("d/e.jpg", b"e"), ("d/g.jpg", "->../a.jpg"), ("h.jpg", "->f.jpg"),
    ]  # fmt: skip
    taken = take(members, mode=mode)
    assert taken.stored == [
        ("f", "7", b"e"), ("./a", "", b"a"), ("b", "2", b"a"), ("d/e", "", b"e"), ("d/g", "", b"a"), ("h", "", b"e"),
    ]  # fmt: skip
    assert taken.passed_over == {"NO_IMAGE": ["a.cls"]}


def test_links_that_lead_nowhere_are_counted(take: Take) -> None:
    taken = take(
        [
            ("a.jpg", "->../store/a.jpg"),
            ("b.jpg", "->/etc/passwd"),
            ("c.jpg", "->c.jpg"),
            ("d.jpg", "->e.jpg"),
            ("e.jpg", "->d.jpg"),
            ("f.jpg", b"f"),
        ]
    )
    assert taken.stored == [("f", "", b"f")]
    assert taken.passed_over == {"LINK_IN_SHARD": ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]}


def test_hidden_members_are_counted(take: Take) -> None:
    names = ["._a.jpg", ".DS_Store", "x/.b.jpg", ".git/c.jpg", "__MACOSX/d.jpg", "__MACOSX/._a.jpg"]
    taken = take([("./a.jpg", b"a"), ("../b.jpg", b"b"), *((name, b"-") for name in names)])
    assert taken.stored == [("./a", "", b"a"), ("../b", "", b"b")]
    assert taken.passed_over == {"HIDDEN": names}


def test_members_without_an_image_and_other_members_are_counted(take: Take) -> None:
    taken = take(
        [("a.jpg", b"a"), ("a.npy", b"-"), ("a.json", b"[]"), ("b.cls", b"1"), ("inner.tar", b"-"), ("LICENSE", b"-")]
    )
    assert taken.passed_over == {"NO_IMAGE": ["b.cls", "inner.tar", "LICENSE"], "OTHER_MEMBER": ["a.npy", "a.json"]}


def test_images_are_known_by_their_bytes_if_their_names_do_not_show_it(take: Take) -> None:
    png, heic = b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x18ftypheic"
    members = [
        ("0", png),
        ("1.img", png),
        ("1.cls", b"3"),
        ("2.heic", heic),
        ("3.jpg", b"-"),
        ("3.depth.exr", b"\x76\x2f\x31\x01"),
    ]
    taken = take(members)
    assert taken.labels == {"0": "", "1": "3", "3": ""}
    assert taken.passed_over == {"FORMAT_NOT_READ": ["2.heic", "3.depth.exr"]}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", b'{"label": 3,', "a.json is not JSON: Expecting property name"),
        ("a.json", '{"label": "café"}'.encode("latin-1"), "a.json is not UTF-8: 'utf-8' codec can't decode byte 0xe9"),
        ("a.json", b"[" * 100_000, "a.json is not JSON: maximum recursion depth"),
        ("a.json", b'{"label": "a\\nb"}', "a.json: the label 'a\\nb' has the control character"),
        ("a.cls", b"\xff\xfe3", "a.cls is not UTF-8"),
        ("a.cls", b"3" * 5000, "a.cls has 5,000 bytes; at most 4,096 are allowed"),
    ],
)
def test_a_label_that_cannot_be_read_costs_only_its_own_sample(
    name: str, content: bytes, says: str, take: Take
) -> None:
    taken = take([("a.jpg", b"a"), (name, content), ("b.jpg", b"b")])
    assert taken.stored == [("b", "", b"b")]
    assert taken.refused["a"].startswith("LABEL_INVALID ")
    assert says in taken.refused["a"]
    assert "a.tar:a." in taken.refused["a"]


@pytest.mark.parametrize("label", [b"NaN", b"null", b'""', b'[{"bbox": [1, 2]}]', b'{"a": 1}'])
def test_json_whose_label_is_no_class_leaves_the_image_without_one(label: bytes, take: Take) -> None:
    taken = take([("a.jpg", b"a"), ("a.json", b'{"label": %s}' % label)])
    assert taken.stored == [("a", "", b"a")]
    assert taken.passed_over == {"OTHER_MEMBER": ["a.json"]}


def test_an_empty_image_and_a_large_one_cost_only_themselves(take: Take) -> None:
    taken = take([("a.jpg", b""), ("a.cls", b"0"), ("b.jpg", b"b"), ("c.jpg", b"c" * 1001)])
    assert taken.stored == [("b", "", b"b")]
    assert taken.refused["a"].startswith("IMAGE_EMPTY ")
    assert taken.refused["a"].endswith("a.tar:a.jpg has no bytes")
    assert taken.refused["c"] == "IMAGE_TOO_LARGE it has 1,001 bytes, at most 1,000 are allowed"


@pytest.mark.parametrize(
    ("size", "why"), [(8000, "this is not the header of a member: truncated header"), (8500, "unexpected end of data")]
)
def test_a_shard_that_ends_early_gives_what_was_read(
    size: int, why: str, shard: Callable[..., Path], take: Take
) -> None:
    path = shard([(f"{n}.jpg", b"x" * 900) for n in range(10)])
    path.write_bytes(path.read_bytes()[:size])
    taken = take(path)
    assert [key for key, *_ in taken.stored] == ["0", "1", "2", "3", "4"]
    assert taken.damage == f"SHARD_UNREADABLE it can be read up to byte 7,680: {why}"


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "it is not a readable tar file: empty file"), (b"<html>404</html>" * 50, "it is not a readable tar file")],
)
def test_a_file_that_is_no_tar_file_is_refused(content: bytes, says: str, tmp_path: Path, take: Take) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    taken = take(tmp_path / "a.tar")
    assert taken.stored == []
    assert says in taken.damage


def test_names_that_are_not_utf8_are_shown_as_far_as_they_can(take: Take) -> None:
    taken = take([(b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), b"a")], form=tarfile.GNU_FORMAT)
    assert taken.stored == [("caf\ufffd", "", b"a")]
