"""Files and directories that the server cannot use are noticed before it imports anything slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from manyview_server.early import paths
from manyview_server.early.paths import PathUnusable
from manyview_server.early.settings import EarlySettings


@pytest.mark.parametrize("name", ["tls_cert", "tls_key", "token_file"])
def test_a_missing_file_is_named_with_its_flag(tmp_path: Path, name: str) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(PathUnusable, match=rf"--{name.replace('_', '-')} {missing}: the file does not exist"):
        paths.check(EarlySettings(**{name: str(missing)}))
    missing.touch()
    paths.check(EarlySettings(**{name: str(missing)}))


def test_a_data_directory_may_be_missing_with_those_above_it(tmp_path: Path) -> None:
    paths.check(EarlySettings(data=str(tmp_path / "a" / "b" / "c")))
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_data_directory_must_be_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for data in (file, file / "below"):
        with pytest.raises(PathUnusable, match=rf"--data {data}: {file} is not a directory"):
            paths.check(EarlySettings(data=str(data)))


def test_a_directory_that_must_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # the tests may run as root, who may write everywhere
    with pytest.raises(PathUnusable, match="this user may not write to it"):
        paths.check(EarlySettings(data=str(tmp_path)))
    with pytest.raises(PathUnusable, match=rf"it cannot be made, because {tmp_path} is read-only"):
        paths.check(EarlySettings(data=str(tmp_path / "new")))
