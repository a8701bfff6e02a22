"""The members of a tar file, plain or compressed, one after the other and in little memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import IO, Any, cast

_CHUNK_BYTES = 1 << 16
_MOST_HEADER_BYTES = 1 << 20
"""A longer name of a member, or more attributes, are taken for damage."""
_HEADER_TYPES = (b"L", b"K", b"x", b"g", b"X")
"""Members that hold the name or the attributes of the next one: `tarfile` reads them into memory."""
_DAMAGE = (tarfile.TarError, EOFError, OSError, OverflowError, ValueError, zlib.error, lzma.LZMAError)
"""The errors of tarfile and of the decompressors about bytes that they cannot read."""
_OPENERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_ZSTD = b"\x28\xb5\x2f\xfd"


class ShardUnreadable(ValueError):
    """A shard cannot be read from some byte on. The message says where and why."""


class TarMember:
    """A file or a link of a tar file. It can be read until the next member is asked for."""

    def __init__(self, tar: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        self._tar = tar
        self._info = info
        self.name = info.name
        self.num_bytes = info.size
        self.is_file = info.isreg()
        self.is_hard_link = info.islnk()
        self.link_target = info.linkname if info.issym() or info.islnk() else ""
        """The name to which a link leads, as the link has it; "" if this is no link."""

    @property
    def data_offset(self) -> int | None:
        """The place of the bytes in a plain tar file, or None if they do not lie together."""
        return None if self._info.issparse() else self._info.offset_data

    def read(self, most: int, start: int = 0) -> bytes:
        """Return at most `most` bytes. Raises ShardUnreadable."""
        try:
            with self._tar.extractfile(self._info) or io.BytesIO() as file:
                file.seek(start)
                return file.read(most)
        except _DAMAGE as error:
            raise _unreadable(self._info.offset, error) from error


class _StrictTarInfo(tarfile.TarInfo):
    """A header that is damaged is an error. `tarfile` takes it for the end of the file, unless it is the first one."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _StrictTarInfo:
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"this is not the header of a member: {error}") from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictTarInfo:
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0 or (info.type in _HEADER_TYPES and info.size > _MOST_HEADER_BYTES):
            raise tarfile.ReadError(f"the header of a member says that it has {info.size} bytes")
        return info


def read_members(path: Path) -> Iterator[TarMember]:
    """Yield the members of a tar file in order, without its folders.

    Raises ShardUnreadable where the file is damaged or ends early, and OSError if it cannot be opened.
    """
    with path.open("rb") as file:
        offset = 0
        try:
            content = _decompressed(file)
            with tarfile.open(fileobj=content, mode="r:", tarinfo=_StrictTarInfo, encoding="utf-8") as tar:
                while (info := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
                    if not info.isdir():
                        yield TarMember(tar, info)
                    offset = tar.offset
                _check_end(content)
        except _DAMAGE as error:
            raise _unreadable(offset, error) from error


def is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(8)
    return start.startswith((*_OPENERS, _ZSTD))


def _decompressed(file: IO[bytes]) -> IO[bytes]:
    start = file.read(8)
    file.seek(0)
    if start.startswith(_ZSTD):
        return _zstd(file)
    for magic, opener in _OPENERS.items():
        if start.startswith(magic):
            return cast(IO[bytes], opener(file))
    return file


def _zstd(file: IO[bytes]) -> IO[bytes]:
    try:
        zstd = import_module("compression.zstd")
    except ModuleNotFoundError:
        raise ValueError("Zstandard is read from Python 3.14 on: decompress it with `zstd -d` first") from None
    return cast(IO[bytes], zstd.ZstdFile(file))


def _check_end(file: IO[bytes]) -> None:
    """Raise ReadError unless nothing but zeros follows the last member. A missing end marker is not reported, because
    some programs never write one."""
    while chunk := file.read(_CHUNK_BYTES):
        if chunk.strip(b"\0"):
            raise tarfile.ReadError("other data follow the end marker; tar files that were joined are read up to it")


def _unreadable(offset: int, error: BaseException) -> ShardUnreadable:
    where = f"it can be read up to byte {offset:,}" if offset else "it is not a readable tar file"
    return ShardUnreadable(f"{where}: {error}")
