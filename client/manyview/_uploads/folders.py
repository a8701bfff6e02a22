"""The image files and shards that lie below folders, and those that callers name.

A folder is listed in two passes. The first one takes the files, the second one follows the links, so that a file that
has a place of its own is never taken under the name of a link. A folder or file that links lead to is taken once.
"""

from __future__ import annotations

import errno
import os
import stat
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from manyview._types.images import ImageError
from manyview._uploads.encoded_image import readable_text, unreadable
from manyview._uploads.shards import is_shard
from manyview._uploads.signatures import HEAD_BYTES, READ_FORMATS, SUFFIXES, image_format, suffix_of
from manyview._uploads.skipped import SkippedCount

_NUM_NAMED = 3
"""The most paths that an error names."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file that an upload takes: an image, or a shard. If `error` is set, the caller named it and it cannot be
    read."""

    path: Path
    key: str
    label: str = ""
    is_shard: bool = False
    error: ImageError | None = None


def list_paths(paths: Sequence[Path], skipped: SkippedCount) -> list[FoundFile]:
    """Return the files that these paths name, and the images and shards below folders, in sorted order for each path.
    `skipped` counts the other files below folders.

    Raises ValueError if there is nothing to upload, and OSError if none of the paths can be read. If only some of them
    cannot, they have an error.
    """
    if len(paths) == 1:
        found = list_path(paths[0], skipped)
    else:
        found = [file for path in paths for file in _among_others(path, skipped)]
    if not found:
        raise ValueError(_nothing_found(paths, skipped))
    if all(file.error for file in found):
        named = "; ".join(f"{file.key}: {file.error.message}" for file in found[:_NUM_NAMED] if file.error)
        raise FileNotFoundError(f"none of the {len(found)} paths can be read: {named}")
    return found


def list_path(path: Path, skipped: SkippedCount) -> list[FoundFile]:
    """Return the images and shards below a folder, or one file. Raises OSError if the path cannot be read."""
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        return FolderListing(os.fspath(path), skipped).run()
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is neither a file nor a folder", os.fspath(path))
    with open(path, "rb"):  # a file that may not be read must be noticed before anything is sent
        return [FoundFile(path, readable_text(path.as_posix()), is_shard=is_shard(path))]


def _among_others(path: Path, skipped: SkippedCount) -> list[FoundFile]:
    try:
        return list_path(path, skipped)
    except OSError as error:
        reason = unreadable(error)
        message = reason.message.removeprefix(f"{readable_text(str(path))} ")
        return [FoundFile(path, readable_text(path.as_posix()), error=replace(reason, message=message))]


def _mode(path: Path) -> int:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise FileNotFoundError(f"{path} is a link to {os.readlink(path)}, which does not exist") from None
        raise FileNotFoundError(f"{path} does not exist") from None


def _nothing_found(paths: Sequence[Path], skipped: SkippedCount) -> str:
    named = ", ".join(map(str, paths[:_NUM_NAMED])) + (" and others" if len(paths) > _NUM_NAMED else "")
    return f"no images below {named}: {skipped.described() or 'it has no files'}"


class FolderListing:
    """One listing of a folder. Names within it are relative to the folder, with "/" between their parts."""

    def __init__(self, root: str, skipped: SkippedCount) -> None:
        self._root = root
        self._skipped = skipped
        self._found: list[FoundFile] = []
        # Device and inode of each file that was found. They are packed, because there may be millions.
        self._devices, self._inodes = array("Q"), array("Q")
        self._folders: set[tuple[int, int]] = set()
        self._links: list[str] = []

    def run(self) -> list[FoundFile]:
        """Return the images and shards, sorted by the parts of their names. Raises OSError if the folder itself cannot
        be listed."""
        os.scandir(self._root).close()
        self._walk("")
        self._follow_links()
        # No name has a NUL, which sorts before everything else, so "a/1" comes before "a-b/1".
        self._found.sort(key=lambda file: file.key.replace("/", "\0"))
        return self._found

    def _walk(self, folder: str) -> None:
        """Take the files below a folder, and keep the links. It does not recurse, because folders may be nested
        deeply."""
        waiting = [(folder, False)]
        while waiting:
            folder, is_hidden = waiting.pop()
            try:
                status = os.stat(self._path(folder))
                if not is_hidden and not self._enter(folder, (status.st_dev, status.st_ino)):
                    continue
                with os.scandir(self._path(folder)) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError:
                self._skipped.add("HIDDEN" if is_hidden else "UNREADABLE_FILE", self._path(folder))
                continue
            prefix = f"{folder}/" if folder else ""
            for entry in found:
                hides = is_hidden or entry.name.startswith(".")
                try:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((prefix + entry.name, hides))
                    elif hides:
                        self._skipped.add("HIDDEN", entry.path)
                    else:
                        self._sort_out(entry, prefix + entry.name, status.st_dev)
                except OSError:
                    self._skipped.add("UNREADABLE_FILE", entry.path)

    def _sort_out(self, entry: os.DirEntry[str], name: str, device: int) -> None:
        if entry.is_symlink():
            self._links.append(name)
        elif entry.is_file(follow_symlinks=False):
            self._devices.append(device)
            self._inodes.append(entry.inode())
            self._take(name)
        else:
            self._skipped.add("NOT_A_FILE", entry.path)

    def _enter(self, folder: str, identity: tuple[int, int]) -> bool:
        """Note that a folder is listed. Return False if it was listed before, under another name."""
        if identity in self._folders:
            self._skipped.add("LINK_VISITED", self._path(folder))
            return False
        self._folders.add(identity)
        return True

    def _follow_links(self) -> None:
        """Follow the links to folders, the least deep ones first, then the links within these, and last the links to
        files."""
        links_to_files: dict[str, tuple[int, int]] = {}
        while self._links:
            links, self._links = sorted(self._links, key=lambda link: (link.count("/"), link)), []
            for link in links:
                with self._counting_unreadable(link):
                    status = os.stat(self._path(link))
                    if stat.S_ISDIR(status.st_mode):
                        self._walk(link)
                    elif stat.S_ISREG(status.st_mode):
                        links_to_files[link] = (status.st_dev, status.st_ino)
                    else:
                        self._skipped.add("NOT_A_FILE", self._path(link))
        visited = set(links_to_files.values()).intersection(zip(self._devices, self._inodes, strict=True))
        for link, identity in sorted(links_to_files.items()):
            if identity in visited:
                self._skipped.add("LINK_VISITED", self._path(link))
                continue
            visited.add(identity)
            with self._counting_unreadable(link):
                self._take(link)

    @contextmanager
    def _counting_unreadable(self, link: str) -> Iterator[None]:
        try:
            yield
        except PermissionError:
            self._skipped.add("UNREADABLE_FILE", self._path(link))
        except OSError:
            self._skipped.add("BROKEN_LINK", self._path(link))

    def _take(self, name: str) -> None:
        """Add a file if it is an image or a shard, and count it otherwise. Raises OSError if it cannot be read."""
        suffix = suffix_of(name)
        if suffix in SUFFIXES:
            self._add(name)
            return
        path = self._path(name)
        if is_shard(Path(name)):
            self._found.append(FoundFile(Path(path), readable_text(name), is_shard=True))
            return
        with open(path, "rb", buffering=0) as file:
            found = image_format(file.read(HEAD_BYTES), suffix)
        if found in READ_FORMATS:
            self._add(name)
        else:
            self._skipped.add("NOT_AN_IMAGE" if found is None else "FORMAT_NOT_READ", path)

    def _add(self, name: str) -> None:
        # The label is the folder that an image lies in. The first folder below the root may be "train" or "validation".
        key = readable_text(name)
        self._found.append(FoundFile(Path(self._path(name)), key, key.rpartition("/")[0].rpartition("/")[2]))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root
