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
import operator
import os
import re
import secrets
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
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
    digest: bytes = b""
    """Its SHA-256, if all of it was verified."""


@dataclass(frozen=True, slots=True)
class StoredArray:
    """The place of an array in a file: from the byte `offset` on, with rows of `row_bytes` each."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    row_bytes: int


@dataclass(frozen=True, slots=True)
class OpenArrayFile:
    """A file whose header was read. The methods raise ArrayFileDamaged if it has become shorter after that."""

    meta: dict[str, Any]
    stored: dict[str, StoredArray]
    file: BinaryIO

    def read(self, name: str, rows: slice = ALL_ROWS) -> Array:
        """Return rows of an array, which is read-only. Raises KeyError if there is no such array."""
        place = self.stored[name]
        chosen = range(place.shape[0])[rows]
        self.file.seek(place.offset + chosen.start * place.row_bytes)
        data = self.file.read(len(chosen) * place.row_bytes)
        if len(data) != len(chosen) * place.row_bytes:
            raise ArrayFileDamaged("it became shorter while it was read")
        return np.frombuffer(data, place.dtype).reshape(len(chosen), *place.shape[1:])

    def read_into(self, name: str, start: int, target: Array) -> None:
        """Fill `target`, which must be contiguous, with the rows of an array from `start` on. It must have them."""
        place, data = self.stored[name], target.reshape(-1).view(np.uint8).data
        assert 0 <= start <= place.shape[0] - len(target)
        assert data.nbytes == len(target) * place.row_bytes
        self.file.seek(place.offset + start * place.row_bytes)
        if self.file.readinto(data) != data.nbytes:  # type: ignore[attr-defined]
            raise ArrayFileDamaged("it became shorter while it was read")


def write(path: Path, meta: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
    """Write or replace the file, and return its SHA-256.

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
    return digest.digest()


def read(path: Path) -> ArrayFile:
    """Read and verify the whole file. Raises ArrayFileDamaged or FileNotFoundError."""
    data = path.read_bytes()
    digest = hashlib.sha256(memoryview(data)[:-DIGEST_BYTES]).digest()
    if digest != data[-DIGEST_BYTES:]:
        raise ArrayFileDamaged(f"{path.name}: its bytes are not those that were written")
    opened = _parse(path, io.BytesIO(data))
    return ArrayFile(meta=opened.meta, arrays={name: opened.read(name) for name in opened.stored}, digest=digest)


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


@contextmanager
def opened(path: Path) -> Iterator[OpenArrayFile]:
    """Open the file and read its header. Verify the length of the file and nothing else.

    Raises ArrayFileDamaged or FileNotFoundError.
    """
    with path.open("rb") as file:
        yield _parse(path, file)


def peek(path: Path, names: Collection[str] = (), rows: slice = ALL_ROWS) -> ArrayFile:
    """Read the JSON values, and these rows of the arrays with these names, as `opened` does. Names that it does not
    have are left out.
    """
    with opened(path) as file:
        arrays = {name: file.read(name, rows) for name in file.stored if name in names}
        return ArrayFile(meta=file.meta, arrays=arrays)


def _parse(path: Path, file: BinaryIO) -> OpenArrayFile:
    try:
        start = file.read(len(MAGIC) + LENGTH.size)
        if not start.startswith(MAGIC):
            raise ArrayFileDamaged(f"{path.name}: it does not start like an array file")
        (length,) = LENGTH.unpack(start[len(MAGIC) :])
        if length > MAX_HEADER_BYTES:
            raise ArrayFileDamaged(f"{path.name}: a header of {length} bytes")
        header = json.loads(file.read(length))
        at, stored = len(start) + length, {}
        for entry in header["arrays"]:
            dtype, shape = _dtype(entry["dtype"]), tuple(map(operator.index, entry["shape"]))
            row_bytes = dtype.itemsize * math.prod(shape[1:])
            if min(shape) < 0:
                raise ArrayFileDamaged(f"{path.name}: an array of the shape {shape}")
            stored[entry["name"]] = StoredArray(dtype, shape, at, row_bytes)
            at += shape[0] * row_bytes
        if file.seek(0, os.SEEK_END) != at + DIGEST_BYTES:
            raise ArrayFileDamaged(f"{path.name}: its length does not match its header")
        return OpenArrayFile(dict(header["meta"]), stored, file)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError) as error:
        raise ArrayFileDamaged(f"{path.name}: its header is damaged") from error


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(name) if RECORDS.fullmatch(name) else DTYPES[name]
