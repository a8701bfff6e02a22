"""A server that has no descriptor left reports that for anything it cannot open, and goes on when it has some."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from manyview_server.front.rpc.status import public_error
from manyview_server.store.database.database import service_error_of_file
from manyview_server.system import open_files

# Takes every descriptor that is left, tries, gives them back, and tries again.
WITHOUT_DESCRIPTORS = """
import asyncio, hashlib, json, os, resource, sqlite3, sys
from pathlib import Path
from manyview_server.errors import ServiceError
from manyview_server.front.datasets.service import stored_bytes
from manyview_server.front.rpc.status import public_error
from manyview_server.store.database.database import service_error_of
from manyview_server.store.records import CheckedImage, ImageRef
from manyview_server.store.store import Store

def image(n):
    data = b"image %d" % n
    return CheckedImage(data=data, key=str(n), label="", sha256=hashlib.sha256(data).digest(), extension="png",
                        width=1, height=1)

async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
    store = Store.open(Path(sys.argv[1]), reserve_bytes=0)
    for name in "ab":
        await store.datasets.create(name)
    session = await store.uploads.open("a", "u")
    await session.append(1, [image(1)])
    (found,) = await store.datasets.find_images("a", [ImageRef(key="1")])
    directory = store.datasets.directory((await store.datasets.get("a")).uid)
    other = await store.uploads.open("b", "u")

    async def read():
        return stored_bytes(directory, found).decode()

    async def upload():
        return (await other.append(1, [image(2)]))[0].outcome

    async def attach():
        try:
            sqlite3.connect(Path(sys.argv[1]) / "another.sqlite").execute("CREATE TABLE t (x)")
        except sqlite3.Error as error:
            raise service_error_of(error)
        return "opened"

    async def told(work):
        try:
            return await work()
        except Exception as error:
            shown = public_error(error)
            return [shown.code, shown.reason, shown.retry_after_s > 0]

    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass
    without = [await told(work) for work in (read, upload, attach)]
    for fd in taken:
        os.close(fd)
    print(json.dumps([without, [await told(work) for work in (read, upload, attach)]]))
    await store.close()

asyncio.run(main())
"""


def test_a_server_without_descriptors_says_so_and_goes_on_when_it_has_some(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_DESCRIPTORS, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert ended.returncode == 0, ended.stderr
    without, again = json.loads(ended.stdout)
    assert without == [["RESOURCE_EXHAUSTED", "TOO_MANY_OPEN_FILES", True]] * 3
    assert again == ["image 1", "STORED", "opened"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_both_limits_are_reported_wherever_they_come_up(number: int) -> None:
    error = OSError(number, os.strerror(number))
    for told in (public_error(error), service_error_of_file(error)):
        assert told is not None
        assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_OPEN_FILES")


def test_other_errors_are_not_taken_for_it() -> None:
    assert not open_files.are_lacking(OSError(errno.EIO, "broken"))
    assert not open_files.are_lacking(None)
    assert public_error(OSError(errno.EIO, "broken")).code == "INTERNAL"
    assert open_files.any_left()
