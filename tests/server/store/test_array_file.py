from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from manyview_server.store import array_file
from manyview_server.store.array_file import ArrayFileDamaged


@pytest.fixture
def path(tmp_path: Path) -> Path:
    arrays: dict[str, np.ndarray] = {
        "ids": np.arange(5),
        "rows": np.arange(10, dtype=np.float32).reshape(5, 2),
        "none": np.empty((0, 3)),
    }
    array_file.write(tmp_path / "block", {"name": "ü", "errors": [[1, "A", "b"]]}, arrays)
    return tmp_path / "block"


def test_what_was_written_is_read(path: Path) -> None:
    block = array_file.read(path)
    assert block.meta == {"name": "ü", "errors": [[1, "A", "b"]]}
    assert block.arrays["rows"].dtype == np.float32
    np.testing.assert_array_equal(block.arrays["rows"], np.arange(10).reshape(5, 2))
    assert block.arrays["none"].shape == (0, 3)
    assert not block.arrays["rows"].flags.writeable
    assert [entry.name for entry in path.parent.iterdir()] == ["block"]


def test_a_peek_reads_what_is_asked_for(path: Path) -> None:
    assert array_file.peek(path).arrays == {}
    (name,) = array_file.peek(path, ["ids"]).arrays
    assert name == "ids"
    assert array_file.peek(path).meta["name"] == "ü"


def test_every_flipped_bit_and_every_missing_byte_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(ArrayFileDamaged):
            array_file.read(path)
        path.write_bytes(whole[:at])
        with pytest.raises(ArrayFileDamaged):
            array_file.read(path)
        with pytest.raises(ArrayFileDamaged):
            array_file.peek(path)


def test_a_peek_at_a_damaged_header_is_no_crash(path: Path) -> None:
    whole = path.read_bytes()
    for at in range(160):
        for bit in (0x01, 0x10, 0x80):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            try:
                array_file.peek(path, ["ids", "rows"])
            except ArrayFileDamaged:
                continue


def test_another_one_takes_its_place_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array_file.write(path, {"name": "second"}, {})
    assert array_file.read(path).meta == {"name": "second"}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="full"):
        array_file.write(path, {"name": "third"}, {})
    assert array_file.read(path).meta == {"name": "second"}
    assert [entry.name for entry in path.parent.iterdir()] == ["block"]


def test_a_directory_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        array_file.write(tmp_path / "gone" / "block", {}, {})
    with pytest.raises(FileNotFoundError):
        array_file.read(tmp_path / "block")
    assert list(tmp_path.iterdir()) == []
