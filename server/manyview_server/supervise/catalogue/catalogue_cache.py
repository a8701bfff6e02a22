"""Keep the catalogue on disk between starts: describing loads torch, and a restarted server should not wait for that.

The file lies beside the data, under a fingerprint of everything that the catalogue depends on. A file that does not
match, or does not parse, is ignored.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from importlib import metadata
from pathlib import Path

from manyview_server.store.durable_files import sync_directory
from manyview_server.supervise.catalogue.catalogue import Catalogue, CatalogueError
from manyview_server.supervise.catalogue.describe import describe
from manyview_server.supervise.catalogue.plugin_packages import plugin_files

DEVICE_NODES = Path("/dev")
SOURCES = Path(__file__).parents[2]
FOLDERS = ("configuration", "learn", "worker")

log = logging.getLogger(__name__)


async def read_or_describe(path: Path, describe: Callable[[], Awaitable[Catalogue]] = describe) -> Catalogue:
    """Return the catalogue in the file `path` if it matches; otherwise call `describe`, and keep the result there.

    Raises:
        CatalogueError: there is no file that matches, and describing failed.
    """
    key = fingerprint()
    if (kept := _read(path, key)) is not None:
        return kept
    catalogue = await describe()
    if catalogue.without_plugins:  # the next attempt may succeed
        return catalogue
    try:
        _keep(path, json.dumps({"fingerprint": key, "catalogue": catalogue.to_json()}))
    except OSError as error:
        log.warning("cannot keep the catalogue, so each start must describe it again: %s", error)
    return catalogue


def _keep(path: Path, text: str) -> None:
    """Write the file durably: a start after a power cut should not wait either."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def fingerprint() -> str:
    """Return a digest of what the catalogue depends on: packages, our sources and the plugins', visible devices."""
    digest = hashlib.sha256()
    for part in _parts():
        digest.update(f"{part}\n".encode())
    return digest.hexdigest()


def _parts() -> Iterator[str]:
    yield sys.version
    yield from sorted(f"{package.metadata['Name']} {package.version}" for package in metadata.distributions())
    for source in sorted(path for folder in FOLDERS for path in SOURCES.glob(f"{folder}/**/*.py")):
        yield _state_of(source)
    yield from sorted(map(_state_of, plugin_files()))
    yield from sorted(node.name for node in DEVICE_NODES.glob("nvidia*"))
    yield os.environ.get("CUDA_VISIBLE_DEVICES", "all")


def _state_of(file: Path) -> str:
    try:
        status = file.stat()
    except OSError:
        return str(file)
    return f"{file} {status.st_size} {status.st_mtime_ns}"


def _read(path: Path, key: str) -> Catalogue | None:
    try:
        kept = json.loads(path.read_text())
        return Catalogue.parse(json.dumps(kept["catalogue"])) if kept["fingerprint"] == key else None
    except (OSError, ValueError, KeyError, TypeError, CatalogueError):
        return None
