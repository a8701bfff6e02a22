"""Arrays in a file that is complete or absent, and that reveals when its bytes have changed.

Magic, u32 length of the header, the header as UTF-8 JSON {"meta", "arrays": [{"name", "dtype", "shape"}]}, the arrays
as they lie in memory (little-endian, row-major), then the SHA-256 of all that. Files are not synced. The SHA-256
detects what a power cut damaged, and the caller writes the file again.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import secrets
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

MAGIC = b"MVBLOCK1"
LENGTH = struct.Struct("<I")
DIGEST_BYTES = 32
MAX_HEADER_BYTES = 16 << 20
TEMPORARY_SUFFIX = ".tmp"
PIECE_BYTES = 1 << 20
DTYPES = {name: np.dtype(name) for name in ("<f2", "<f4", "<f8", "<i8")}
RECORDS = re.compile(r"\|V[1-9][0-9]{0,3}")
"""The types of structured arrays. They are read without their fields, which the caller knows."""
ALL_ROWS = slice(None)

Array = npt.NDArray[Any]


class ArrayFileDamaged(Exception):
    """The file is no array file, or its bytes are not those that were written."""


class Stamp(NamedTuple):
    """A description of a file that changes whenever the file is written or replaced."""

    inode: int
    num_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayFile:
    """The contents of a file: JSON values, and arrays by name, which are read-only."""

    meta: dict[str, Any]
    arrays: dict[str, Array]


def write(path: Path, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> int:
    """Write or replace the file, and return its size in bytes.

    Raises:
        OSError: the directory is gone (FileNotFoundError), or the disk is full or failing. No file is left behind.
    """
    little = {name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in arrays.items()}
    described = [{"name": n, "dtype": a.dtype.str, "shape": list(a.shape)} for n, a in little.items()]
    header = json.dumps({"meta": meta, "arrays": described}, separators=(",", ":")).encode()
    start = MAGIC + LENGTH.pack(len(header)) + header
    pieces = [memoryview(start), *(array.reshape(-1).view(np.uint8).data for array in little.values())]
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    temporary = path.with_name(f"{path.name}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("xb") as file:
            file.writelines([*pieces, digest.digest()])
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return sum(map(len, pieces)) + DIGEST_BYTES


def read(path: Path) -> ArrayFile:
    """Read and verify the whole file. Raises ArrayFileDamaged or FileNotFoundError."""
    data = path.read_bytes()
    if hashlib.sha256(data[:-DIGEST_BYTES]).digest() != data[-DIGEST_BYTES:]:
        raise ArrayFileDamaged(f"{path.name}: its bytes are not those that were written")
    return _parse(path, io.BytesIO(data), None)


def verify(path: Path) -> Stamp:
    """Verify every byte of the file, piece by piece. Raises ArrayFileDamaged or FileNotFoundError."""
    # Take the stamp before the bytes are read, so that a file that is replaced in between has another one.
    stamp = stamp_of(path)
    with path.open("rb") as file:
        left = stamp.num_bytes - DIGEST_BYTES
        digest = hashlib.sha256()
        while left > 0 and (piece := file.read(min(left, PIECE_BYTES))):
            digest.update(piece)
            left -= len(piece)
        if digest.digest() != file.read(DIGEST_BYTES):
            raise ArrayFileDamaged(f"{path.name}: its bytes are not those that were written")
    return stamp


def stamp_of(path: Path) -> Stamp:
    """Return the stamp of a file. Raises FileNotFoundError."""
    found = path.stat()
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def peek(path: Path, names: Collection[str] = (), rows: slice = ALL_ROWS) -> ArrayFile:
    """Read the JSON values, and these rows of the arrays with these names. Verify the length of the file and nothing
    else.

    Raises ArrayFileDamaged or FileNotFoundError.
    """
    with path.open("rb") as file:
        return _parse(path, file, names, rows)


def _parse(path: Path, file: BinaryIO, names: Collection[str] | None, rows: slice = ALL_ROWS) -> ArrayFile:
    try:
        start = file.read(len(MAGIC) + LENGTH.size)
        if not start.startswith(MAGIC):
            raise ArrayFileDamaged(f"{path.name}: it does not start like an array file")
        (length,) = LENGTH.unpack(start[len(MAGIC) :])
        if length > MAX_HEADER_BYTES:
            raise ArrayFileDamaged(f"{path.name}: a header of {length} bytes")
        header = json.loads(file.read(length))
        at, arrays = len(start) + length, {}
        for entry in header["arrays"]:
            dtype, (num_rows, *row_shape) = _dtype(entry["dtype"]), entry["shape"]
            row_bytes = dtype.itemsize * math.prod(row_shape)
            if names is None or entry["name"] in names:
                chosen = range(num_rows)[rows]
                file.seek(at + chosen.start * row_bytes)
                data = file.read(len(chosen) * row_bytes)
                arrays[entry["name"]] = np.frombuffer(data, dtype).reshape(len(chosen), *row_shape)
            at += num_rows * row_bytes
        if file.seek(0, os.SEEK_END) != at + DIGEST_BYTES:
            raise ArrayFileDamaged(f"{path.name}: its length does not match its header")
        return ArrayFile(meta=dict(header["meta"]), arrays=arrays)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError) as error:
        raise ArrayFileDamaged(f"{path.name}: its header is damaged") from error


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(name) if RECORDS.fullmatch(name) else DTYPES[name]
