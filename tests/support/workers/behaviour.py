"""Parts of the behaviour of every scripted worker."""

from __future__ import annotations

import os
import struct
import time

from manyview_server.link.blocking import Link
from manyview_server.link.decode_notes import QUARANTINE, TOO_SLOW
from manyview_server.messages.embedding import RowFailed
from manyview_server.messages.message import Hello

SNAPSHOT_ROW = struct.Struct("<qiqiiii")
"""SNAPSHOT_DTYPE without numpy, whose import takes more time than all else that a scripted worker does."""


def hello(link: Link) -> None:
    link.send(Hello(pid=os.getpid(), versions={"worker": "scripted"}))


def rest_of_the_day() -> None:
    while True:
        time.sleep(3600)


def burn() -> None:
    """Use CPU time until somebody ends the process."""
    while True:
        pass


def too_slow(row: int) -> RowFailed:
    return RowFailed(row=row, reason=TOO_SLOW, message=QUARANTINE[TOO_SLOW])
