"""Checkpoints on disk: a directory of files with a manifest of their sizes and hashes, whole or not there at all.

A job's checkpoints lie beside each other as ``<step:09d>-<attempt>``. Each is written to a directory of another name,
synced, then renamed: what bears the name of a checkpoint was written to its end.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "MANIFEST.json"
BACKBONE = "backbone.safetensors"
"""The backbone's weights, exactly as they are exported."""
STATE = "state.safetensors"
"""Every other tensor of the training run."""
STATE_JSON = "state.json"
"""Everything that is no tensor, the model card included."""

NAME = re.compile(r"(\d{9,})-(\d+)")
TEMPORARY_PREFIX = ".tmp-"
CORRUPT_PREFIX = ".corrupt-"
MAX_SET_ASIDE = 3
GONE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO}
"""Of the errors of reading a file, those that say something about the file."""


OLDER_CARDS: dict[str, Any] = {"embedding_dim": 0, "stem_relu": True, "patch_size": None}
"""The fields that model cards of older releases lack, with the values that hold for their models."""


class CheckpointCorrupt(Exception):
    """A checkpoint is not what its manifest says, or has none."""


class CheckpointIncompatible(ValueError):
    """A checkpoint is whole, but another release wrote it and this one cannot use it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What a checkpoint's model is, and how an image becomes its input."""

    train_job: str
    step: int
    epoch: int
    method: str
    backbone: str
    backbone_width: float
    # Of a ResNet; "auto" for any other network.
    stem: str
    stem_relu: bool
    # Of a vision transformer, in pixels; None for any other network.
    patch_size: int | None
    # Width of the learned embedding behind the backbone, 0 where there is none.
    embedding_dim: int
    # Width of what embeds: the backbone's features, or the learned embedding.
    feature_dim: int
    # 0 where there is no projection head.
    projection_dim: int
    # Side in pixels that an image is resized to, and the channels' normalisation after scaling to 0..1.
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ModelCard:
        """Read a card that `to_json` made, in this release or an older one.

        Raises:
            CheckpointIncompatible: the card lacks fields that every release wrote, or has fields of a newer release.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        whole = {**OLDER_CARDS, **values}
        if missing := sorted(names - set(whole)):
            raise CheckpointIncompatible(f"the model card lacks {', '.join(missing)}")
        if unknown := sorted(set(whole) - names):
            text = f"the model card was written by a newer release: {', '.join(unknown)} is not known here"
            raise CheckpointIncompatible(text)
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in whole.items()}
        return cls(**fields)


def name(step: int, attempt: int) -> str:
    """The directory's name of the checkpoint that `attempt` wrote at `step`."""
    return f"{step:09d}-{attempt}"


def parse_name(directory: Path) -> tuple[int, int] | None:
    """(step, attempt) of a checkpoint's directory, None for anything else."""
    match = NAME.fullmatch(directory.name)
    return (int(match[1]), int(match[2])) if match else None


def write(directory: Path, files: Mapping[str, Callable[[Path], None] | bytes]) -> dict[str, Any]:
    """Write a checkpoint durably and give back its manifest: {"files": {name: {"size", "sha256"}}}.

    Each file is its bytes, or a function that writes it to the path given. An unfinished write leaves nothing under
    the name `directory`; a directory that is already there is replaced.

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
    """Make `directory` a second name of the checkpoint `source`, durably: linked where possible, else copied; verified.

    Raises:
        CheckpointCorrupt: `source` is gone, or not what its manifest says.
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
    """Bytes of all files of a manifest."""
    return sum(entry["size"] for entry in manifest["files"].values())


def verify(directory: Path) -> dict[str, Any]:
    """Read every file and compare; gives the manifest.

    Raises:
        CheckpointCorrupt: a file is missing, has another size or hash, there is no readable manifest, or it is all of
            another step than its name says.
        OSError: it cannot be said now, such as for want of descriptors.
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


def newest_first(directory: Path) -> list[Path]:
    """The checkpoints below `directory`, unverified: the last attempt's highest step first."""
    if not directory.is_dir():
        return []
    found = [(parse_name(path), path) for path in directory.iterdir() if path.is_dir()]
    keyed = [((attempt_step[1], attempt_step[0]), path) for attempt_step, path in found if attempt_step]
    return [path for _, path in sorted(keyed, reverse=True)]


def newest_good(directory: Path) -> Path | None:
    """The newest checkpoint below `directory` that passes `verify`; None when there is none."""
    return next(_good(newest_first(directory)), None)


def remove_unfinished(directory: Path) -> None:
    """Remove what writers that died left behind. Only while no writer is alive."""
    for path in directory.glob(f"{TEMPORARY_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)


def set_aside(directory: Path) -> None:
    """Rename a corrupt checkpoint, for whoever wants to look into it; of those there are, only the newest stay."""
    corrupt = sorted(directory.parent.glob(f"{CORRUPT_PREFIX}*"))
    for path in corrupt[: max(0, len(corrupt) + 1 - MAX_SET_ASIDE)]:
        shutil.rmtree(path, ignore_errors=True)
    target = directory.with_name(f"{CORRUPT_PREFIX}{directory.name}")
    shutil.rmtree(target, ignore_errors=True)
    with suppress(FileNotFoundError):  # then nothing is left of it
        directory.rename(target)


def read_state(directory: Path) -> dict[str, Any]:
    """The checkpoint's `state.json`, unverified."""
    state: dict[str, Any] = json.loads((directory / STATE_JSON).read_bytes())
    return state


def read_model_card(directory: Path) -> ModelCard:
    """The checkpoint's model card, unverified. Raises OSError, ValueError or CheckpointIncompatible."""
    return ModelCard.from_json(read_state(directory)["model"])


def _good(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        try:
            verify(path)
        except CheckpointCorrupt:
            continue
        yield path


def _check_step(directory: Path, manifest: Mapping[str, Any]) -> None:
    """A checkpoint that was put in the place of another one is whole in itself."""
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
