"""A second server says that the directory is in use before it has imported anything that takes time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from manyview_server.early import lock as early_lock
from manyview_server.early.settings import EarlySettings
from manyview_server.store.lock import DataLock
from manyview_server.store.store import Store
from manyview_server.store.unusable import StoreLocked

SLOW = {"pydantic", "pydantic_core", "pydantic_settings", "grpc", "google", "numpy", "torch", "manyview"}

SECOND = """
import json, sys
from manyview_server.__main__ import main
status = main(sys.argv[1:])
print(json.dumps([status, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data directory that is in use by this process."""
    path = tmp_path / "data"
    path.mkdir()
    lock = DataLock.take(path)
    yield path
    lock.release()


def by_flag(data_dir: Path) -> tuple[list[str], dict[str, str]]:
    return ["--listen", "127.0.0.1:0", "--data", str(data_dir)], {}


def by_flag_with_equals(data_dir: Path) -> tuple[list[str], dict[str, str]]:
    return [f"--data={data_dir}"], {"MANYVIEW_SERVER_DATA": "/nowhere"}


def by_variable(data_dir: Path) -> tuple[list[str], dict[str, str]]:
    return [], {"MANYVIEW_SERVER_DATA": str(data_dir)}


def by_file(data_dir: Path) -> tuple[list[str], dict[str, str]]:
    file = data_dir.parent / "server.toml"
    file.write_text(f'data = "{data_dir}"\n')
    return ["--config", str(file)], {}


@pytest.mark.parametrize("way", [by_flag, by_flag_with_equals, by_variable, by_file])
def test_a_second_server_is_refused_before_anything_slow_is_imported(data_dir: Path, way: object) -> None:
    arguments, environment = way(data_dir)  # type: ignore[operator]
    command = [sys.executable, "-c", SECOND, "serve", *arguments]
    ended = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=50)
    status, modules = json.loads(ended.stdout)
    assert status == 1
    line = json.loads(ended.stderr)
    assert line["message"] == f"cannot start: {data_dir} is in use by another server"
    assert line["level"] == "error"
    assert SLOW.isdisjoint(modules)


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        ([], {}),
        (["--data"], {}),
        (["--data", "/nowhere/at/all"], {}),
        (["--config", "/nowhere.toml"], {}),
        ([], {"MANYVIEW_SERVER_CONFIG": "/dev/null"}),
    ],
)
def test_settings_that_name_no_store_are_left_to_their_reader(
    arguments: list[str], environment: Mapping[str, str]
) -> None:
    assert early_lock.take(EarlySettings.read(arguments, environment).data) is None


async def test_the_store_goes_on_with_the_lock_that_was_taken_and_lets_it_go(tmp_path: Path) -> None:
    await Store.open(tmp_path).close()
    lock = early_lock.take(str(tmp_path))
    assert lock is not None
    with pytest.raises(StoreLocked, match="in use"):
        early_lock.take(str(tmp_path))
    store = Store.open(tmp_path, lock=lock)
    with pytest.raises(StoreLocked):
        Store.open(tmp_path)
    await store.close()
    await Store.open(tmp_path).close()


async def test_the_lock_of_another_directory_is_let_go(tmp_path: Path) -> None:
    for name in ("a", "b"):
        await Store.open(tmp_path / name).close()
    lock = early_lock.take(str(tmp_path / "a"))
    store = Store.open(tmp_path / "b", lock=lock)
    await Store.open(tmp_path / "a").close()
    with pytest.raises(StoreLocked):
        Store.open(tmp_path / "b")
    await store.close()
