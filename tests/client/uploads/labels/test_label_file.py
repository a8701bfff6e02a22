"""Files of labels: what each format means, and errors that name the file, the line and the field."""

from pathlib import Path
from typing import Any

import pytest

from manyview._uploads.labels import label_file


def read(path: Path, content: str | bytes) -> list[tuple[str, Any]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(entry.key, entry.label) for entry in label_file.read(path)]


@pytest.mark.parametrize(
    ("name", "content", "labels"),
    [
        ("a.csv", "key,label\na.jpg,cat\nb.jpg,\n", [("a.jpg", "cat"), ("b.jpg", "")]),
        ("a.csv", "\ufefflabel,key\r\ncat,a.jpg\r\n\r\n", [("a.jpg", "cat")]),
        ("a.CSV", '"key", label ,split\n"a, b.jpg","say ""cat""",train\n', [("a, b.jpg", 'say "cat"')]),
        ("a.tsv", "key\tlabel\na,b.jpg\tcat\n", [("a,b.jpg", "cat")]),
        ("a.json", '{"a.jpg": "cat", "b.jpg": 3, "c.jpg": null, "d.jpg": NaN, "e.jpg": true}',
         [("a.jpg", "cat"), ("b.jpg", 3), ("c.jpg", None), ("d.jpg", pytest.approx(float("nan"), nan_ok=True)),
          ("e.jpg", True)]),
        ("a.json", "{}", []),
        ("a.jsonl", '{"key": "a.jpg", "label": "cat", "width": 8}\n\n{"label": 3, "key": "b.jpg"}',
         [("a.jpg", "cat"), ("b.jpg", 3)]),
        ("a.ndjson", '{"key": "a\u2028.jpg", "label": ""}\r\n', [("a\u2028.jpg", "")]),
    ],
)  # fmt: skip
def test_each_format_is_read(tmp_path: Path, name: str, content: str, labels: Any) -> None:
    assert read(tmp_path / name, content) == labels


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", "", r"labels: the name of .*a\.txt must end in \.csv, \.tsv, \.json, \.jsonl, \.ndjson"),
        ("a.csv", "", "a.csv is empty; its first line must name the columns key and label"),
        ("a.csv", "a.jpg,cat\n", "line 1: the header must name the columns key and label once; it has 'a.jpg', 'cat'"),
        ("a.csv", "key,label,label\n", "line 1: the header must name"),
        ("a.csv", "key,label\na.jpg,cat\nb.jpg\n", "line 3: 1 field, but the header has 2$"),
        ("a.csv", "key,label\na.jpg,cat,dog\n", "line 2: 3 fields, .* put a text that holds the separator in double"),
        ("a.csv", "key,label\n,cat\n", "line 2, field key: it must be the key of an image, not ''"),
        ("a.csv", 'key,label\n"a.jpg,cat\n', "line 2: unexpected end of data"),
        ("a.csv", b"key,label\na.jpg,caf\xe9\n", "line 2: byte 19 is not UTF-8; save the file as UTF-8"),
        ("a.json", '{"a.jpg":\n"cat"', "line 2: it is not JSON: Expecting ',' delimiter at column 6"),
        ("a.json", '[{"key": "a.jpg"}]', "a.json must hold one JSON object .*; one object for each image .* .jsonl"),
        ("a.json", "3", "a.json must hold one JSON object"),
        ("a.json", '{"": "cat"}', "key '', field key: it must be the key of an image"),
        ("a.json", "[" * 100_000, "a.json, line 1: its values are nested too deeply"),
        ("a.jsonl", '{"key": "a.jpg", "label": 1}\n{"key"\n', "line 2: it is not JSON"),
        ("a.jsonl", '"a.jpg"\n', "line 1: it must be a JSON object with the fields key and label"),
        (
            "a.jsonl",
            '{"file_name": "a.jpg", "label": 1}\n',
            "line 1: the field key is missing; it has 'file_name', 'la",
        ),
        ("a.jsonl", '{"key": "a.jpg"}\n', "line 1: the field label is missing"),
        ("a.jsonl", '{"key": 3, "label": 1}\n', "line 1, field key: it must be the key of an image, not 3"),
    ],
)
def test_an_error_says_where_the_file_is_wrong(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        read(tmp_path / name, content)
    assert str(tmp_path / name) in str(raised.value)


def test_a_folder_is_no_file_of_labels(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(ValueError, match=r"a\.csv is a folder, not a file of labels"):
        list(label_file.read(tmp_path / "a.csv"))
