"""Recognize and report that a process or machine has no file descriptor left.

Such an error says nothing about the file that should have been opened: an image is not lost, and a checkpoint not
corrupt, because of it.
"""

from __future__ import annotations

import errno
import logging
import os

from manyview_server.errors import ResourceExhausted

ERRNOS = frozenset({errno.EMFILE, errno.ENFILE})
RETRY_AFTER_S = 5.0

log = logging.getLogger(__name__)


def are_lacking(error: BaseException | None) -> bool:
    """Return whether the error is that there are too many open files."""
    return isinstance(error, OSError) and error.errno in ERRNOS


def any_left() -> bool:
    """Return whether this process can open a file now. SQLite does not say why it cannot open one."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return not are_lacking(error)
    return True


def too_many(error: BaseException | None) -> ResourceExhausted:
    """Log `error`, and return the error for callers. Other calls may free descriptors, so it says when to try again."""
    log.error("too many open files; raise the limit of open files (ulimit -n): %s", error)
    text = "the server has too many open files: try again, or ask the operator to raise its limit of open files"
    return ResourceExhausted("TOO_MANY_OPEN_FILES", text, retry_after_s=RETRY_AFTER_S)
