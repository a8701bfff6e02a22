"""Checkpoints on disk: a directory of files with a manifest of their sizes and hashes, complete or absent.

The checkpoints of a job are the directories ``<step:09d>-<attempt>`` beside each other. Each is written under another
name, synced and then renamed, so that a directory with the name of a checkpoint was written to its end.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

MANIFEST = "MANIFEST.json"
BACKBONE = "backbone.safetensors"
"""The backbone's weights, exactly as they are exported."""
STATE = "state.safetensors"
"""Every other tensor of the training run."""
STATE_JSON = "state.json"
"""Everything that is not a tensor, the model card included."""

NAME = re.compile(r"(\d{9,})-(\d+)")
TEMPORARY_PREFIX = ".tmp-"
CORRUPT_PREFIX = ".corrupt-"
MAX_SET_ASIDE = 3
GONE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO}
"""The errors of a read that say something about the file itself."""


class CheckpointCorrupt(Exception):
    """A checkpoint is not what its manifest says, or has none."""


def name(step: int, attempt: int) -> str:
    """Return the directory name of the checkpoint that `attempt` wrote after `step`."""
    return f"{step:09d}-{attempt}"


def parse_name(directory: Path) -> tuple[int, int] | None:
    """Return the step and the attempt in the name of a checkpoint's directory, or None for any other name."""
    match = NAME.fullmatch(directory.name)
    return (int(match[1]), int(match[2])) if match else None


def write(directory: Path, files: Mapping[str, Callable[[Path], None] | bytes]) -> dict[str, Any]:
    """Write a checkpoint durably, and return its manifest: {"files": {name: {"size", "sha256"}}}.

    A file is given as its bytes, or as a function that writes it to a path. An unfinished write leaves nothing under
    the name `directory`. An existing directory is replaced.

    Raises:
        OSError: the disk is full or failing.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = directory.parent / f"{TEMPORARY_PREFIX}{directory.name}-{secrets.token_hex(4)}"
    temporary.mkdir()
    try:
        manifest = {"files": {name: _write_file(temporary / name, content) for name, content in files.items()}}
        _write_file(temporary / MANIFEST, json.dumps(manifest, indent=1).encode())
        _sync(temporary)
        if directory.exists():
            shutil.rmtree(directory)
        temporary.rename(directory)
        _sync(directory.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return manifest


def copy(source: Path, directory: Path) -> None:
    """Make `directory` a verified and durable copy of the checkpoint `source`. Files are linked where that is possible.

    Raises:
        CheckpointCorrupt: `source` is gone, or does not match its manifest.
        OSError: the disk is full or failing.
    """
    temporary = directory.parent / f"{TEMPORARY_PREFIX}{directory.name}-{secrets.token_hex(4)}"
    temporary.mkdir()
    try:
        for name in (*verify(source)["files"], MANIFEST):
            _link(source / name, temporary / name)
        verify(temporary)
        _sync(temporary)
        temporary.rename(directory)
        _sync(directory.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def num_bytes(manifest: Mapping[str, Any]) -> int:
    """Return the size of all files of a manifest in bytes."""
    return sum(entry["size"] for entry in manifest["files"].values())


def verify(directory: Path) -> dict[str, Any]:
    """Read every file, compare it with the manifest, and return the manifest.

    Raises:
        CheckpointCorrupt: a file is missing or has another size or hash, the manifest cannot be read, or the checkpoint
            is of another step than its name says.
        OSError: it cannot be determined now, for example because no descriptor is left.
    """
    try:
        manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_bytes())
        if not manifest["files"]:
            raise CheckpointCorrupt(f"{directory.name}/{MANIFEST} names no file")
        for file, expected in manifest["files"].items():
            found = _describe(directory / file)
            if found != expected:
                raise CheckpointCorrupt(f"{directory.name}/{file}: {found} instead of {expected}")
        _check_step(directory, manifest)
    except OSError as error:
        if error.errno not in GONE:
            raise
        raise CheckpointCorrupt(f"{directory.name}/{Path(error.filename or '').name}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointCorrupt(f"{directory.name}/{MANIFEST} is damaged") from error
    return manifest


def remove_unfinished(directory: Path) -> None:
    """Remove the unfinished directories of writers that died. Call it only while no writer is alive."""
    for path in directory.glob(f"{TEMPORARY_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)


def set_aside(directory: Path) -> None:
    """Rename a corrupt checkpoint, so that somebody can examine it. Only the newest `MAX_SET_ASIDE` are kept."""
    corrupt = sorted(directory.parent.glob(f"{CORRUPT_PREFIX}*"))
    for path in corrupt[: max(0, len(corrupt) + 1 - MAX_SET_ASIDE)]:
        shutil.rmtree(path, ignore_errors=True)
    target = directory.with_name(f"{CORRUPT_PREFIX}{directory.name}")
    shutil.rmtree(target, ignore_errors=True)
    with suppress(FileNotFoundError):  # nothing is left of the checkpoint
        directory.rename(target)


def read_state(directory: Path) -> dict[str, Any]:
    """Return the contents of the checkpoint's `state.json`, unverified."""
    state: dict[str, Any] = json.loads((directory / STATE_JSON).read_bytes())
    return state


def _check_step(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Raise CheckpointCorrupt if the checkpoint of another step was put in this one's place. Its manifest matches."""
    named = parse_name(directory)
    if named is not None and STATE_JSON in manifest["files"]:
        step = read_state(directory).get("step")
        if step != named[0]:
            raise CheckpointCorrupt(f"{directory.name}/{STATE_JSON} is of step {step}")


def _write_file(path: Path, content: Callable[[Path], None] | bytes) -> dict[str, Any]:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    _sync(path)
    return _describe(path)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
        _sync(target)


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": file.tell(), "sha256": digest}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
