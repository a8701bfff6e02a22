"""Find out where progress can be shown: on a terminal, in a notebook, or nowhere."""

from __future__ import annotations

import os
import sys
from typing import TextIO

WIDTH = 80
"""The columns of a notebook's output, and of a terminal that does not know its width."""


def stream_for(progress: bool | None) -> TextIO | None:
    """Return the stream to show progress on, or None. `progress` None stands for a terminal or a notebook."""
    if progress is False:
        return None
    if is_notebook():
        return sys.stdout  # stderr has a red background there
    return sys.stderr if progress or is_terminal(sys.stderr) else None


def is_notebook() -> bool:
    """Does this process run the cells of a notebook?"""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell" or "google.colab" in type(shell).__module__


def is_terminal(stream: TextIO | None) -> bool:
    """Is `stream` open, and is it a terminal? pythonw has no stderr, and a program may have closed it."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def width_of(stream: TextIO) -> int:
    """Return the columns of a terminal."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or WIDTH
    except (OSError, ValueError):
        return WIDTH
