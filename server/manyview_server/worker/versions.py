"""The versions of the libraries that a worker runs on."""

from __future__ import annotations

import functools
import importlib.metadata
import platform

import torch

PIXELS_VERSION = 2
"""Raise this when files that can be decoded give other pixels, or when files become readable. Stored embeddings of
another version are computed again."""


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of what decides about numbers: Python, torch, torchvision, timm, and CUDA if torch has it.

    A forked worker reports what its fork server found, because that is what has been imported.
    """
    found = {"python": platform.python_version(), "torch": torch.__version__, "pixels": str(PIXELS_VERSION)}
    # Importing these would take seconds, so their metadata is read.
    found |= {name: importlib.metadata.version(name) for name in ("torchvision", "timm")}
    return found | ({"cuda": torch.version.cuda} if torch.version.cuda else {})
